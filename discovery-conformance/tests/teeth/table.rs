//! Which case catches which broken backend.

use std::sync::Arc;

use super::keeping::*;
use super::watching::*;
use super::wrap::{Make, Twist};
use super::writing::*;

/// A broken backend, the case that must fail it, and a part of what that case must say.
pub(crate) struct Mutant {
    pub(crate) name: &'static str,
    pub(crate) make: Make,
    pub(crate) killer: &'static str,
    pub(crate) says: &'static str,
}

fn made<T: Twist + Default>() -> Arc<dyn Twist> {
    Arc::new(T::default())
}

macro_rules! mutants {
    ($($twist:ident => $killer:ident, $says:literal;)*) => {
        pub(crate) const MUTANTS: &[Mutant] = &[$(
            Mutant { name: stringify!($twist), make: made::<$twist>, killer: stringify!($killer), says: $says },
        )*];
    };
}

mutants! {
    AnswersBeforeItIsStored => reg_01_ok_means_listed, "after Ok";
    ListsAnOldState => reg_01_ok_means_listed, "does not list";
    BarrierSaysNothing => reg_01_ok_means_listed_beside_an_open_view, "registrations the list has";
    DeniesALostAcknowledgement => reg_02_lost_acknowledgement_converges, "the error denies it";
    RepeatsAreNew => reg_03_equal_json_is_silent, "the stream told [Removed(Key(item/x/";
    UpdatesByRemoving => reg_04_update_is_never_absent, "absent from a list";
    ChangesIncarnationOnUpdate => reg_04_update_is_never_absent, "was told as";
    TwoOwnersHoldOneKey => reg_05_exactly_one_owner, "hold one key";
    LoserWaitsForItsTurn => reg_06_loser_leaves_nothing, "the stream told [Added(Key(item/x/7)";
    LosesOneOfMany => reg_07_many_registrars, "a list has";
    NeverTakesAKeyTwice => reg_08_deregister_then_register, "0 records for 1; missing: item/x/";
    BatchIsNoTransaction => reg_15_batch_is_one_transaction, "the store's batch has";
    FencesNothing => reg_09_write_of_an_earlier_session_is_fenced, "answered with Ok";
    ExpiryTakesWhatMoved => reg_09_expiry_of_an_earlier_session_takes_nothing, "the stream told [Removed(";
    RemovesAgainLater => reg_09_late_deregister_takes_nothing, "the stream told [Removed(";
    RemovingTheAbsentFails => reg_10_removing_the_absent_is_no_error, "no such key";
    RemovesByPrefix => reg_10_deregister_takes_only_its_own, "others went with it";
    AnswersBeforeItIsRemoved => reg_11_deregistered_is_gone_at_once, "still listed";
    LosesRemovals => reg_11_deregistered_is_gone_at_once, "still listed";
    TakesSilenceForRemoval => reg_11_write_under_way_is_no_withdrawal, "still listed";
    RetriesForgetfully => reg_12_concurrent_registers_of_one_owner, "records listed";
    ClosesWithoutRemoving => reg_13_closing_removes_all, "10 records for 0; too many: item/x/1";
    IgnoresRemovals => reg_14_dropped_guard_deregisters, "2 records for 1; too many: item/x/";
    TakesAnyBatch => reg_15_too_large_a_batch_writes_nothing, "too_large";
    ClaimsNoBatches => reg_15_without_batches_is_unsupported, "takes an atomic batch";
    NeverRenews => liv_01_live_owner_keeps_its_records, "the stream told [Removed(";
    ExpiresTooEarly => liv_02_unrenewed_session_expires_in_time, "the stream told [Removed(";
    ExpiresTooLate => liv_02_unrenewed_session_expires_in_time, "1 records for 0; too many: item/x/";
    LeaderChangeTakesSessions => liv_03_leader_change_removes_nobody, "the stream told [Removed(";
    TakesAnotherIdAfterALoss => liv_04_stopped_owner_comes_back, "0 records for 1; missing: item/x/";
    NeverLearnsOfALostSession => liv_05_revoked_session_is_replaced, "0 records for 4; missing: item/own/";
    VerifiesNothing => liv_05_deleted_record_is_put_back, "1 records for 2; missing: item/x/";
    VerifiesPresenceOnly => liv_05_overwritten_record_is_put_back, "is 99 and not 1";
    PromisesTooLongALife => liv_06_validity_counts_from_sending, "says that it is lost";
    PromisesALittleMore => liv_06_validity_counts_from_sending, "said to be valid";
    Resurrects => liv_08_deregister_beats_putting_back, "the stream told [Added(Key(item/x/";
    RepairsWhatItCouldNotRemove => liv_08_deregister_beats_repair, "missing, and back: item/x";
    ExpiresByTheWallClock => liv_09_wall_clock_means_nothing, "the stream told [Removed(";
    ReportsTheWishedTtl => liv_10_effective_ttl_is_reported, "the minimum is";
    RemovesTwice => liv_11_storm_removes_each_once, "not once";
    PropagatesTooLate => wat_01_view_is_live_when_it_returns, "the change is in the view";
    ShowsHalfASnapshotFirst => flt_03_resync_is_never_partial, "a reader sees";
    EmptyOnError => wat_03_silence_is_not_emptiness, "was told as";
    ListsNothingOnError => wat_03_silence_is_not_emptiness, "is listed as";
    LosesTheFirstChange => wat_04_no_gap_under_writes, "9 records for 10; missing: item/p3/";
    FlashesBack => ord_01_states_come_in_commit_order, "came after";
    LosesEveryFifthChange => ord_02_every_fold_ends_equal, "other value: item/x/";
    KeepAliveLooksLikeAChange => ord_03_nothing_changed_is_nothing_told, "the stream told [Removed(Key(item/x/";
    NeverChangesIncarnation => ord_05_new_incarnation_shows_in_one_batch, "silence";
    TearsTransactions => ord_07_transaction_is_never_split, "the store's batch has";
    ReachedSaysYes => ord_09_read_your_writes, "lacks what it registered";
    LogBeginsNow => ord_10_change_log_is_complete, "are missing";
    LogSkipsWhatIsForgotten => ord_10_forgotten_history_is_expired, "history was forgotten";
    ClaimsNoLog => ord_10_without_a_log_is_unsupported, "and there is a token";
    ResumesFromNow => flt_01_cut_and_healed, "missing: item/x/b; too many: item/x/a";
    EndsForGoodOnAFailure => flt_01_cut_and_healed, "the stream ended";
    KeepsTheDeletedOfAGap => flt_02_forgotten_history_is_resynchronised, "too many";
    ForgottenHistoryIsFatal => flt_02_forgotten_history_is_resynchronised, "the stream ended";
    ForgetsIncarnationsOverGaps => flt_04_recreated_in_the_gap_is_new, "silence";
    NeverNoticesADeadConnection => flt_06_half_open_watch_is_found, "stale: not within";
    LosesRecordsWithAMember => flt_07_lost_member_costs_nothing, "two updates were told as [Removed(";
    LosesWatchesWithAMember => flt_07_lost_member_costs_nothing, "other value: item/x/1 is 0 and not 1";
    HidesABrokenConnection => flt_08_outage_serves_the_last_set, "stale: not within";
    DeniesALossOfData => flt_10_grace_hides_the_loss, "the stream told [Removed(";
    CriesLossOfData => flt_10_grace_needs_a_proven_loss, "deleted in the gap leaves: not within";
    DiesOfAnUndecodableRecord => flt_14_undecodable_hides_nobody, "1 records for 2; missing: item/y/";
    PermissionIsUntyped => flt_15_refused_at_open_is_typed, "the view: not within";
    DropsUnknownFields => flt_16_unknown_fields_are_shown_unchanged, "get shows";
    QueuesAllItTells => con_01_unpolled_stream_costs_a_set, "of the values stored are still held";
    LeaksATaskPerWatch => con_02_open_and_close_leak_nothing, "tasks are left";
    LeaksADescriptorPerWatch => con_02_open_and_close_leak_nothing, "descriptors more are open";
    WritesOnThoughItWasCancelled => con_03_cancelled_registration_leaves_nothing, "the stream told [Added(";
    EndsEachWatchOnce => con_04_equal_queries_share_a_watch, "opened 2 watches";
    MissesTheDeeper => key_01_queries_are_exact_on_segments, "the view of";
    BleedsIntoSiblings => key_01_watches_are_exact_on_segments, "lies beside";
    DecodesTwice => key_02_segments_round_trip_or_are_refused, "names were taken";
    RefusesWithoutAReason => key_02_segments_round_trip_or_are_refused, "without a character or a length";
    ForgetsCase => key_03_no_two_names_meet, "two names meet";
    CutsLongValues => key_05_value_at_the_limit, "the largest value";
    DeclaresMoreThanItHolds => key_05_value_at_the_limit, "at most 1048576 can be stored";
    ListsInTwoReads => key_06_large_set_is_one_snapshot, "no committed state";
    IgnoresReadiness => rdy_01_visible_when_ready_and_registered, "the stream told [Added(Key(item/x/";
    NeverReadyAgain => rdy_02_ready_again, "0 records for 3; missing: item/x/1";
    IgnoresTermination => rdy_03_terminating_is_not_ready, "1 records for 0; too many: item/x/";
    TrustsAnyName => rdy_04_impostor_stays_invisible, "the stream told [Added(";
    StoresLate => rdy_05_flapping_ends_right, "was shown, and readiness was";
}

/// The statements that no broken backend can show to be judged, and why.
pub(crate) const BEYOND: &[(&str, &str)] = &[
    ("LIV 7", "the core decides when a renewal is tried again, whatever the backend answers: its own tests break that"),
    (
        "FLT 17",
        "its faults belong to files, and the broken backends are in memory: discovery-file's own tests have them",
    ),
    ("CON 5", "the core decides on which thread what runs"),
    ("CON 6", "a load asks no backend"),
    ("CON 7", "the core decides how many watches it opens"),
    ("KEY 4", "the core decides what a predicate lets in"),
];
