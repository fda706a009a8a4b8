//! The bounded history of transactions.

use std::collections::VecDeque;

use discovery_core::backend::Change;
use discovery_core::{Key, Scope};

use super::records::Stored;

/// One committed transaction.
#[derive(Debug)]
pub(crate) struct Transaction {
    /// What readers see of it.
    pub(crate) changes: Vec<Change>,
    /// What was there before, to roll it back.
    pub(crate) undo: Vec<(Key, Option<Stored>)>,
}

/// What a reader finds from a revision on.
#[derive(Debug)]
pub(crate) enum Found {
    /// The first transaction with changes of the scope.
    Changes(u64, Vec<Change>),
    /// Nothing up to the newest revision.
    Nothing,
    /// The revision that was asked for is no longer kept.
    Compacted,
}

/// The newest transactions. Every revision after `compacted` has one.
#[derive(Debug)]
pub(crate) struct History {
    transactions: VecDeque<Transaction>,
    limit: usize,
    compacted: u64,
}

impl History {
    pub(crate) fn new(limit: usize) -> Self {
        Self { transactions: VecDeque::new(), limit, compacted: 0 }
    }

    /// The newest revision that is no longer kept.
    pub(crate) fn compacted(&self) -> u64 {
        self.compacted
    }

    pub(crate) fn push(&mut self, transaction: Transaction) {
        self.transactions.push_back(transaction);
        while self.transactions.len() > self.limit {
            self.transactions.pop_front();
            self.compacted += 1;
        }
    }

    /// Takes back the newest transaction.
    pub(crate) fn pop(&mut self) -> Option<Transaction> {
        self.transactions.pop_back()
    }

    /// Forgets everything up to and including `revision`, the newest one.
    pub(crate) fn restart(&mut self, revision: u64) {
        self.transactions.clear();
        self.compacted = revision;
    }

    pub(crate) fn find(&self, scope: &Scope, from: u64) -> Found {
        let Some(skip) = from.checked_sub(self.compacted + 1) else { return Found::Compacted };
        for (transaction, revision) in self.transactions.iter().skip(skip as usize).zip(from..) {
            let changes: Vec<_> =
                transaction.changes.iter().filter(|change| scope.contains(change.key())).cloned().collect();
            if !changes.is_empty() {
                return Found::Changes(revision, changes);
            }
        }
        Found::Nothing
    }
}
