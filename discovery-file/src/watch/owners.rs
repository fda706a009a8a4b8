//! Which owners live, and which files they claim, as one watcher sees it.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use discovery_core::Result;

use crate::owner::{Claim, End, Owner};
use crate::place::{Place, Spot, TEMPORARY};
use crate::reading::Reading;
use crate::record::GRACE;

/// For how long the close of an owner file may come before the end of its lock.
const CLOSE_TO_UNLOCK: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Known {
    owner: Owner,
    /// When this watcher saw the last renewal, by its own monotonic clock.
    renewal_seen: Instant,
    /// Whether that was moved on since, because nobody had looked for long.
    forgiven: bool,
    end: Option<End>,
}

/// The owners of one shared directory.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    known: HashMap<String, Known>,
    by_claim: HashMap<Claim, String>,
    suspects: HashMap<String, Instant>,
    /// What lies among the owner files and is none.
    strays: HashSet<String>,
    /// Whose owner began, ended or is another since this was asked last.
    turned: HashSet<Spot>,
}

impl Owners {
    /// Whether the owner of this file lives; `None` where no owner claims it.
    pub(crate) fn lives(&self, claim: &Claim) -> Option<bool> {
        self.known.get(self.by_claim.get(claim)?).map(|known| known.end.is_none())
    }

    #[cfg(test)]
    pub(crate) fn clocks(&mut self) -> impl Iterator<Item = &mut Instant> {
        self.known.values_mut().map(|known| &mut known.renewal_seen)
    }

    #[cfg(test)]
    pub(crate) fn claimed(&self) -> usize {
        self.by_claim.len()
    }

    /// Those that are over, to be removed.
    pub(crate) fn over(&self) -> impl Iterator<Item = (Owner, End)> + '_ {
        self.known.values().filter_map(|known| Some((known.owner.clone(), known.end?)))
    }

    /// Somebody closed this owner file: the owner, if that is its death.
    pub(crate) fn suspect(&mut self, name: String, now: Instant) {
        self.suspects.insert(name, now + CLOSE_TO_UNLOCK);
    }

    /// Whether some death has still to be found out about.
    pub(crate) fn suspicious(&self) -> bool {
        !self.suspects.is_empty()
    }

    /// The files whose owners' lives have changed since this was called last.
    pub(crate) fn take_turned(&mut self) -> HashSet<Spot> {
        std::mem::take(&mut self.turned)
    }

    /// Asks after those who may just have died.
    pub(crate) fn check_suspects(&mut self, place: &Place, now: Instant) -> Result<()> {
        let suspects: Vec<_> = self.suspects.iter().map(|(name, deadline)| (name.clone(), *deadline)).collect();
        for (name, deadline) in suspects {
            self.look(place, &name, now, Reading::Waits)?;
            let over = self.known.get(&name).is_none_or(|known| known.end.is_some());
            if over || now >= deadline {
                self.suspects.remove(&name);
            }
        }
        Ok(())
    }

    /// Looks at every owner file.
    pub(crate) fn refresh(&mut self, place: &Place, now: Instant) -> Result<()> {
        let names = Owner::names(place)?;
        let gone: Vec<_> = self.known.keys().filter(|known| !names.contains(known)).cloned().collect();
        for name in gone {
            self.forget(&name);
        }
        self.strays.retain(|name| names.contains(name));
        names.iter().try_for_each(|name| self.look(place, name, now, Reading::Waits))
    }

    /// Starts the clocks anew: nobody looked for long, and owners may have been stopped meanwhile too. With `once`, of
    /// those only for whom that was not done yet since they renewed last.
    pub(crate) fn forgive(&mut self, once: bool, now: Instant) {
        for known in self.known.values_mut().filter(|known| !(once && known.forgiven)) {
            (known.renewal_seen, known.forgiven) = (now, true);
        }
    }

    /// Takes no silence into account that this watcher was too late to hear the end of.
    pub(crate) fn excuse(&mut self, late: Duration, now: Instant) {
        for known in self.known.values_mut() {
            known.renewal_seen = (known.renewal_seen + late).min(now);
        }
    }

    fn forget(&mut self, name: &str) {
        if let Some(known) = self.known.remove(name) {
            for claim in known.owner.claims {
                // Another owner may claim the file by now.
                if self.by_claim.get(&claim).is_some_and(|owner| owner == name) {
                    self.by_claim.remove(&claim);
                }
                self.turned.insert(claim.spot);
            }
        }
    }

    fn claimed_by(&mut self, name: &str, claims: impl IntoIterator<Item = Claim>) {
        for claim in claims {
            let spot = claim.spot.clone();
            if self.by_claim.insert(claim, name.to_owned()).is_none_or(|before| before != name) {
                self.turned.insert(spot);
            }
        }
    }

    /// Looks at one owner file.
    pub(crate) fn look(&mut self, place: &Place, name: &str, now: Instant, reading: Reading) -> Result<()> {
        let Some((state, alive)) = Owner::probe(place, name, reading)? else {
            self.forget(name);
            let path = place.owners().join(name);
            if path.symlink_metadata().is_ok() && self.strays.insert(name.to_owned()) {
                let advice = "move it away, or let all processes run as one user";
                tracing::warn!(path = %path.display(), advice, "no file that can be read lies among the owners");
            }
            return Ok(());
        };
        let before = self.known.get(name);
        let lived = before.map(|known| known.end.is_none());
        let read = before.map(|known| (known.owner.state.nonce, known.owner.state.size));
        let renewed = before.is_none_or(|known| known.owner.state.renewed != state.renewed);
        let renewal_seen = before.filter(|_| !renewed).map_or(now, |known| known.renewal_seen);
        let forgiven = !renewed && before.is_some_and(|known| known.forgiven);
        match read {
            Some((nonce, size)) if (nonce, size) == (state.nonce, state.size) => {}
            Some((nonce, size)) if nonce == state.nonce && size < state.size => {
                let Some(known) = self.known.get_mut(name) else { return Ok(()) };
                let Some(claims) = known.owner.read_on(place, reading)? else { return Ok(()) };
                self.claimed_by(name, claims);
            }
            _ => {
                let Some(owner) = Owner::read(place, name, reading)? else { return Ok(()) };
                self.forget(name);
                // The claims of a file on its way to its name are in the one that it replaces, too.
                if !name.starts_with(TEMPORARY) {
                    self.claimed_by(name, owner.claims.iter().cloned());
                }
                self.known.insert(name.to_owned(), Known { owner, renewal_seen, forgiven, end: None });
            }
        }
        if let Some(known) = self.known.get_mut(name) {
            known.owner.state = state;
            known.renewal_seen = renewal_seen;
            known.forgiven &= !renewed;
            let silent = now.duration_since(renewal_seen) > known.owner.ttl + GRACE;
            known.end = match (alive, silent) {
                (false, _) => Some(End::Death),
                (true, true) => Some(End::Silence(state.renewed)),
                (true, false) => None,
            };
            if lived.is_some_and(|lived| lived != known.end.is_none()) {
                self.turned.extend(known.owner.claims.iter().map(|claim| claim.spot.clone()));
            }
        }
        Ok(())
    }
}
