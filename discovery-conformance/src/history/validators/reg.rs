//! Registration.

use discovery_core::ErrorKind;

use super::super::evidence::{Evidence, Read, Wrong};
use super::super::log::Act;
use super::{is_list, listed, told};

/// Registered, and every later list shows it.
pub(super) fn reg_01(evidence: &Evidence<'_>) -> Vec<String> {
    evidence.found(|finding| {
        finding.read == Read::List && matches!(finding.wrong, Wrong::Missing | Wrong::Dead { by_delete: false })
    })
}

/// Refused without effect, and nobody ever sees it; of unknown effect, and it is settled afterwards.
pub(super) fn reg_02(evidence: &Evidence<'_>) -> Vec<String> {
    let refused = |wrong| matches!(wrong, Wrong::Refused(kind) if kind != ErrorKind::Conflict);
    let mut texts = evidence.found(|finding| refused(finding.wrong));
    texts.extend(evidence.unsettled(&[], |one| is_list(one.what) && one.extra > 0));
    texts
}

/// An update does not make a record absent.
pub(super) fn reg_04(evidence: &Evidence<'_>) -> Vec<String> {
    evidence.found(|finding| {
        let lately = evidence.log.time(finding.at).saturating_sub(evidence.lag(finding.weather, finding.at));
        let updated = evidence.writes_of(finding.key).iter().map(|write| &evidence.log.writes[*write]).any(|write| {
            matches!(write.act, Act::Update(_))
                && write.start <= finding.at
                && write.end.is_none_or(|end| evidence.log.time(end) >= lately)
        });
        matches!(finding.wrong, Wrong::Missing | Wrong::Churn) && finding.vanished && !finding.garbage && updated
    })
}

/// The loser of a key leaves nothing.
pub(super) fn reg_06(evidence: &Evidence<'_>) -> Vec<String> {
    evidence.found(|finding| finding.wrong == Wrong::Refused(ErrorKind::Conflict))
}

/// What is late does not touch what came after it.
pub(super) fn reg_09(evidence: &Evidence<'_>) -> Vec<String> {
    let mut texts = Vec::new();
    for handle in 0..evidence.setting.observer + 1 {
        let lists = listed(evidence, handle);
        texts.extend(evidence.goes_back(lists, &format!("the lists of handle {handle}")));
    }
    texts.extend(evidence.found(|finding| finding.read == Read::List && finding.wrong == Wrong::Buried));
    told(texts)
}

/// Deregistered, and lists omit it at once, streams within the bound.
pub(super) fn reg_11(evidence: &Evidence<'_>) -> Vec<String> {
    evidence.found(|finding| {
        finding.wrong == Wrong::Dead { by_delete: true } && (finding.read == Read::List || finding.weather.fair())
    })
}
