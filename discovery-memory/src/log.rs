//! The change log: every committed change after a token.

use async_trait::async_trait;
use discovery_core::backend::{Change, ChangeLog, Position};
use discovery_core::{Error, ErrorKind, Result, Scope};
use futures_util::stream::{self, BoxStream};

use crate::backend::MemoryBackend;
use crate::cluster::Operation;
use crate::link::Passage;
use crate::place::Place;
use crate::reader::Reader;
use crate::state::{Found, Purpose};

type Item = Result<(Vec<Change>, Position)>;

struct Log {
    reader: Reader,
    epoch: u64,
    over: bool,
}

impl Log {
    async fn next(&mut self) -> Option<Item> {
        while !self.over {
            match self.reader.passage() {
                Passage::Open => {}
                Passage::Hang => {
                    self.reader.link_changed().await;
                    continue;
                }
                Passage::Fail(error) => return self.fail(error),
            }
            let handle = self.reader.handle.clone();
            let due = {
                let mut state = handle.cluster.state();
                if state.epoch != self.epoch {
                    drop(state);
                    return self.fail(expired());
                }
                let found = self.reader.pending(&mut state).map(|from| state.history.find(&self.reader.scope, from));
                match found {
                    Some(Found::Changes(revision, changes)) => {
                        let next = (revision < state.revision).then_some(revision + 1);
                        self.reader.set_pending(&mut state, next);
                        return Some(Ok((changes, state.at(revision).position())));
                    }
                    Some(Found::Compacted) => {
                        drop(state);
                        return self.fail(expired());
                    }
                    Some(Found::Nothing) => self.reader.set_pending(&mut state, None),
                    None => {}
                }
                state.next_due()
            };
            self.reader.news(due).await;
        }
        None
    }

    fn fail(&mut self, error: Error) -> Option<Item> {
        self.over = true;
        Some(Err(self.reader.handle.name(error, Operation::ChangeLog)))
    }
}

fn expired() -> Error {
    Error::new(ErrorKind::Expired, "the store no longer keeps the changes after this token: list, and take a new one")
}

#[async_trait]
impl ChangeLog for MemoryBackend {
    async fn now(&self) -> Result<Position> {
        let handle = self.handle();
        handle.enter(Operation::ChangeLog).await?;
        let position = handle.cluster.state().here().position();
        Ok(position)
    }

    async fn changes_since(&self, scope: &Scope, token: &Position) -> Result<BoxStream<'static, Item>> {
        let handle = self.handle();
        handle.enter(Operation::ChangeLog).await?;
        let mut state = handle.cluster.state();
        let kept = |place: &Place| {
            place.epoch == state.epoch && (state.history.compacted()..=state.revision).contains(&place.revision)
        };
        let Some(place) = Place::parse(token).filter(kept) else {
            return Err(handle.name(expired(), Operation::ChangeLog));
        };
        let pending = (place.revision < state.revision).then_some(place.revision + 1);
        let reader = Reader::open(handle, scope, Purpose::Log, pending, &mut state);
        let log = Log { reader, epoch: place.epoch, over: false };
        drop(state);
        Ok(Box::pin(stream::unfold(log, |mut log| async {
            let item = log.next().await?;
            Some((item, log))
        })))
    }
}
