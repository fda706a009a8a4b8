//! Histories made by hand: what a validator must say of them, and what it must not.

use std::time::Duration;

use discovery_core::{Bounds, Capabilities, ErrorKind, InstanceId, Key};
use tokio::time::sleep;

use super::super::evidence::{Evidence, Setting};
use super::super::log::{Act, Answer, FOREIGN, Fresh, Lens, Load, Opened, Recorder, Shown, Tell, Told};
use super::{Validate, flt, ord, wat};
use crate::item::Item;
use crate::world::Hook;

/// The handle that watches.
const WATCHER: usize = 3;
/// The bound of recovery, with the patience: what lasts for longer has to be noticed.
const LIMIT: Duration = Duration::from_secs(2);

fn key() -> Key {
    Item::at(["a"]).key(InstanceId(1)).expect("a key")
}

struct Tale {
    recorder: Recorder,
    setting: Setting,
}

impl Tale {
    fn new() -> Self {
        let mut capabilities = Capabilities::none();
        capabilities.ttl = true;
        let mut bounds = Bounds::default();
        (bounds.propagation, bounds.recovery) = (Duration::from_millis(100), LIMIT / 2);
        let setting = Setting {
            capabilities,
            bounds,
            ttl: LIMIT,
            networked: true,
            patience: 2,
            owners: WATCHER,
            observer: WATCHER + 1,
            wrapped: false,
            stalls: Vec::new(),
        };
        Self { recorder: Recorder::new(), setting }
    }

    /// A view of everything, opened in no time.
    fn view(&self) -> usize {
        let (call, answered) = (self.recorder.tick(), self.recorder.tick());
        let lens = Lens { segments: &[], even: false };
        let view = Opened {
            handle: WATCHER,
            lens,
            call,
            answered,
            closed: None,
            limit: LIMIT,
            failed: None,
            lazy: false,
            joined: false,
        };
        let mut log = self.recorder.log();
        log.views.push(view);
        log.views.len() - 1
    }

    fn load(&self, view: usize, fresh: Fresh, shown: Shown) {
        let mut log = self.recorder.log();
        let at = self.recorder.tick_in(&mut log);
        log.loads.push(Load { view, at, version: at as u64, synced: true, fresh, shown, reached: None });
    }

    fn tell(&self, view: usize, fresh: Fresh, tells: Vec<Tell>) {
        let mut log = self.recorder.log();
        let at = self.recorder.tick_in(&mut log);
        let version = at as u64;
        log.told.push(Told { view, at, version, loaded: version, fresh, synced: true, reset: false, tells });
    }

    fn says(&self, validate: Validate) -> Vec<String> {
        let log = self.recorder.log();
        validate(&Evidence::new(&log, &self.setting))
    }
}

/// A server that is started again serves before all of it is up, and with it every outage is over that somebody else
/// still counts on.
#[tokio::test(start_paused = true)]
async fn who_is_live_while_another_outage_is_being_ended_may_be() {
    let tale = Tale::new();
    let view = tale.view();
    tale.recorder.harm(Hook::Outage, None, None);
    let second = tale.recorder.harm(Hook::Outage, None, None);
    sleep(LIMIT * 2).await;
    tale.recorder.ending(second);
    sleep(LIMIT / 10).await;
    tale.load(view, Fresh::Live, Shown::new());
    sleep(LIMIT / 10).await;
    tale.recorder.healed(second);
    assert_eq!(tale.says(flt::flt_08), [""; 0]);
}

/// One that began while another was being ended may have been ended with it.
#[tokio::test(start_paused = true)]
async fn an_outage_that_began_while_another_was_being_ended_may_be_over() {
    let tale = Tale::new();
    let view = tale.view();
    let first = tale.recorder.harm(Hook::Outage, None, None);
    tale.recorder.ending(first);
    sleep(LIMIT / 10).await;
    tale.recorder.harm(Hook::Outage, None, None);
    sleep(LIMIT / 10).await;
    tale.recorder.healed(first);
    sleep(LIMIT * 2).await;
    tale.load(view, Fresh::Live, Shown::new());
    assert_eq!(tale.says(flt::flt_08), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_cut_that_was_healed_excuses_no_outage() {
    let tale = Tale::new();
    let view = tale.view();
    tale.recorder.harm(Hook::Cut, Some(WATCHER), None);
    let second = tale.recorder.harm(Hook::Cut, Some(WATCHER), None);
    tale.recorder.healed(second);
    tale.recorder.harm(Hook::Outage, None, None);
    sleep(LIMIT * 2).await;
    tale.load(view, Fresh::Live, Shown::new());
    let said = tale.says(flt::flt_08);
    assert!(said.len() == 1 && said[0].contains("outage since"), "{said:?}");
}

/// Where records have no time to live, no loss of touch takes any away: their owner is alive.
#[tokio::test(start_paused = true)]
async fn only_records_with_a_time_to_live_may_go_in_an_outage() {
    for ttl in [true, false] {
        let mut tale = Tale::new();
        tale.setting.capabilities.ttl = ttl;
        let (view, key) = (tale.view(), key());
        let write = tale.recorder.begin(0, &key, Act::Register(1), None);
        tale.recorder.end(&[write], Answer::Ok);
        sleep(LIMIT * 2).await;
        let id = tale.recorder.log().id(&key);
        tale.load(view, Fresh::Live, vec![(id, 1)]);
        tale.recorder.harm(Hook::Outage, None, None);
        sleep(LIMIT / 2).await;
        tale.load(view, Fresh::Stale(ErrorKind::Unavailable), Shown::new());
        for (name, validate) in [("FLT 8", flt::flt_08 as Validate), ("FLT 3", flt::flt_03)] {
            let said = tale.says(validate);
            assert_eq!(said.len(), usize::from(!ttl), "{name} with a time to live: {ttl}; {said:?}");
        }
    }
}

/// Of two foreign writes at a time the one that was begun last may be the first to be stored.
#[tokio::test(start_paused = true)]
async fn two_foreign_writes_at_a_time_come_in_any_order() {
    for overlap in [true, false] {
        let tale = Tale::new();
        let (view, key) = (tale.view(), key());
        let first = tale.recorder.begin(FOREIGN, &key, Act::Register(1), None);
        if !overlap {
            tale.recorder.end(&[first], Answer::Ok);
        }
        let second = tale.recorder.begin(FOREIGN, &key, Act::Register(2), None);
        tale.recorder.end(&[second], Answer::Ok);
        let id = tale.recorder.log().id(&key);
        tale.load(view, Fresh::Live, vec![(id, 2)]);
        if overlap {
            tale.recorder.end(&[first], Answer::Ok);
        }
        tale.load(view, Fresh::Live, vec![(id, 1)]);
        sleep(LIMIT).await;
        tale.load(view, Fresh::Live, vec![(id, 1)]);
        for (name, validate) in [("WAT 1", wat::wat_01 as Validate), ("ORD 8", ord::ord_08)] {
            let said = tale.says(validate);
            assert_eq!(said.is_empty(), overlap, "{name}, at a time: {overlap}; {said:?}");
        }
    }
}

/// A view that is behind because nothing ran is not late by what did not run, and by no more.
#[tokio::test(start_paused = true)]
async fn a_machine_that_stands_still_makes_nobody_late() {
    const STALL: Duration = Duration::from_millis(50);
    for (stalled, late, count) in [(false, LIMIT, 1), (true, STALL * 10, 0), (true, LIMIT, 1)] {
        let mut tale = Tale::new();
        let (view, key) = (tale.view(), key());
        let write = tale.recorder.begin(0, &key, Act::Register(1), None);
        tale.recorder.end(&[write], Answer::Ok);
        if stalled {
            tale.setting.stalls.push((Duration::ZERO, STALL));
        }
        sleep(late).await;
        tale.load(view, Fresh::Live, Shown::new());
        let said = tale.says(wat::wat_01);
        assert_eq!(said.len(), count, "stalled: {stalled}, {late:?} late; {said:?}");
    }
}

/// Who may do what is part of the data that a store can lose.
#[tokio::test(start_paused = true)]
async fn what_was_lost_with_the_data_is_denied_no_more() {
    for (lost, count) in [(None, 1), (Some(Hook::LoseData), 0), (Some(Hook::RollBack), 0), (Some(Hook::Compact), 1)] {
        let tale = Tale::new();
        let view = tale.view();
        tale.recorder.harm(Hook::Deny, Some(WATCHER), None);
        if let Some(lost) = lost {
            let harm = tale.recorder.harm(lost, None, None);
            tale.recorder.healed(harm);
        }
        sleep(LIMIT * 2).await;
        tale.load(view, Fresh::Live, Shown::new());
        assert_eq!(tale.says(flt::flt_15).len(), count, "{lost:?}");
    }
}

/// A process that was stopped is noticed by what it does not hear, where a store is never silent for so long.
#[tokio::test(start_paused = true)]
async fn a_stopped_process_is_noticed_where_silence_is() {
    for (silence, count) in [(None, 0), (Some(LIMIT / 4), 1)] {
        let mut tale = Tale::new();
        tale.setting.bounds.silence = silence;
        let view = tale.view();
        tale.recorder.harm(Hook::Pause, Some(WATCHER), None);
        sleep(LIMIT * 2).await;
        tale.load(view, Fresh::Live, Shown::new());
        assert_eq!(tale.says(flt::flt_06).len(), count, "{silence:?}");
    }
}

/// What was cut is behind for as long as it may take to recover, and from then on by no more than what was never cut.
#[tokio::test(start_paused = true)]
async fn who_has_recovered_is_late_like_anybody() {
    for (since, count) in [(LIMIT / 4, 0), (LIMIT * 2, 1)] {
        let tale = Tale::new();
        let (view, key) = (tale.view(), key());
        let harm = tale.recorder.harm(Hook::Cut, Some(WATCHER), None);
        tale.recorder.healed(harm);
        sleep(since).await;
        let write = tale.recorder.begin(0, &key, Act::Register(1), None);
        tale.recorder.end(&[write], Answer::Ok);
        sleep(LIMIT / 4).await;
        tale.load(view, Fresh::Live, Shown::new());
        assert_eq!(tale.says(wat::wat_01).len(), count, "{since:?} after it was healed");
    }
}

/// Nobody renews on a machine that stands still.
#[tokio::test(start_paused = true)]
async fn records_may_expire_while_the_machine_stands_still() {
    for (stall, count) in [(LIMIT / 2, 0), (LIMIT / 8, 1)] {
        let mut tale = Tale::new();
        let (view, key) = (tale.view(), key());
        let write = tale.recorder.begin(0, &key, Act::Register(1), None);
        tale.recorder.end(&[write], Answer::Ok);
        sleep(LIMIT * 2).await;
        let id = tale.recorder.log().id(&key);
        tale.load(view, Fresh::Live, vec![(id, 1)]);
        let from = LIMIT * 2 + LIMIT / 10;
        tale.setting.stalls.push((from, from + stall));
        sleep(LIMIT).await;
        tale.load(view, Fresh::Stale(ErrorKind::Unavailable), Shown::new());
        assert_eq!(tale.says(ord::ord_01).len(), count, "{stall:?}");
    }
}

/// Where readiness has a watch of its own a reader may hear of a record before it hears what had become of its owner by then.
#[tokio::test(start_paused = true)]
async fn readiness_may_be_told_after_what_was_written_later() {
    for (readiness, count) in [(true, 0), (false, 1)] {
        let mut tale = Tale::new();
        tale.setting.capabilities.readiness = readiness;
        let (view, key) = (tale.view(), key());
        let unready = tale.recorder.harm(Hook::Ready, Some(0), None);
        tale.recorder.healed(unready);
        let write = tale.recorder.begin(0, &key, Act::Register(1), None);
        tale.recorder.end(&[write], Answer::Ok);
        let id = tale.recorder.log().id(&key);
        let stale = Fresh::Stale(ErrorKind::Unavailable);
        tale.tell(view, stale, vec![Tell::Added(id, 1)]);
        tale.tell(view, stale, vec![Tell::Removed(id, 1), Tell::Added(id, 1)]);
        assert_eq!(tale.says(ord::ord_03).len(), count, "readiness: {readiness}");
    }
}
