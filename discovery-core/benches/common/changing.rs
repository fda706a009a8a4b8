//! One change at a time, from the store's word to the batch in the consumer's hands.

use std::time::Duration;

use discovery_core::backend::Change;
use discovery_core::{Changes, Query};

use crate::clock;
use crate::record::{Worker, fleet, mixed};
use crate::scripted::Script;

/// How many changes are made ready before the clock starts.
const READY: u64 = 1_024;

/// A view of every record, and one stream of its changes.
pub(crate) struct Changing {
    script: Script,
    changes: Changes<Worker>,
    records: u64,
    among: u64,
    done: u64,
}

impl Changing {
    /// `records` of them, of which `among` change, evenly spread. A million lie outside the processor's caches, a thousand
    /// of a million inside.
    pub(crate) fn new(records: u64, among: u64) -> Self {
        let script = Script::new(fleet(records));
        let mut changes = script.view(Query::all()).changes();
        let first = script.runtime.block_on(changes.next()).expect("a first batch");
        assert_eq!(first.changes().len() as u64, records);
        Self { script, changes, records, among, done: 0 }
    }

    /// Gives records here and there another value, one after the other, and waits for each to be delivered.
    pub(crate) fn update(&mut self, count: u64) -> Duration {
        let mut spent = Duration::ZERO;
        for first in (0..count).step_by(READY as usize) {
            let ready = READY.min(count - first);
            let changes: Vec<Change> = (0..ready).map(|_| self.another()).collect();
            let Self { script, changes: stream, .. } = self;
            spent += script.runtime.block_on(async {
                let start = clock::now();
                for change in changes {
                    script.commit(vec![change]);
                    let batch = stream.next().await.expect("a batch");
                    assert_eq!(batch.changes().len(), 1);
                }
                clock::now() - start
            });
        }
        spent
    }

    fn another(&mut self) -> Change {
        self.done += 1;
        let number = mixed(self.done) % self.among * (self.records / self.among);
        Change::Put(Worker::new(number, self.done).entry())
    }
}
