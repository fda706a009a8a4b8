//! Sets that are counted at once or in pages, with tokio's clock paused.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use discovery_core::ErrorKind;
use tokio::time::sleep;

use super::*;
use crate::readiness::Ref;
use crate::reflector::{Events, Page, REQUEST, Source, Start};

/// A set of objects at version 50, each of which takes a while to read.
struct Set {
    objects: Mutex<usize>,
    each: Duration,
    /// How many pages are answered before one whose token has expired.
    expires: Mutex<Option<usize>>,
    asked: Mutex<Vec<(Part, u32)>>,
    names: Option<AtomicU32>,
}

impl Set {
    fn new(objects: usize, each: Duration) -> Self {
        let (expires, names) = (Mutex::default(), Some(AtomicU32::new(0)));
        Self { objects: Mutex::new(objects), each, expires, asked: Mutex::default(), names }
    }

    /// How much was asked for at a time since this was asked before, 0 for all.
    fn asked(&self) -> Vec<u32> {
        let size = |(part, size): (Part, u32)| if part == Part::Whole { 0 } else { size };
        self.asked.lock().unwrap().drain(..).map(size).collect()
    }
}

#[async_trait]
impl Source for Set {
    async fn list(&self, _: Part, _: u32) -> Result<Page, Failure> {
        panic!("names are asked for")
    }

    async fn watch(&self, _: Start) -> Result<Events, Failure> {
        panic!("names are asked for")
    }

    async fn version(&self) -> Result<u64, Failure> {
        panic!("names are asked for")
    }

    async fn is_absent(&self) -> bool {
        panic!("it is there")
    }
}

#[async_trait]
impl Counted for Set {
    async fn census(&self, part: Part, size: u32) -> Result<(Census, Option<String>), Failure> {
        self.asked.lock().unwrap().push((part.clone(), size));
        let objects = *self.objects.lock().unwrap();
        let from = match &part {
            Part::Next(token) => token.parse().unwrap(),
            Part::First | Part::Whole => 0,
        };
        let to = if part == Part::Whole { objects } else { objects.min(from + size as usize) };
        if let Some(left) = &mut *self.expires.lock().unwrap() {
            let Some(less) = left.checked_sub(1) else {
                let error = Error::new(ErrorKind::Expired, "the token has expired");
                *left = 1;
                return Err(Failure { cause: Cause::Gone, error });
            };
            *left = less;
        }
        sleep(self.each * u32::try_from(to - from).unwrap()).await;
        let object = |number: usize| (Ref::new("ns", &number.to_string()), 1);
        let objects_of_page: HashMap<Ref, u64> = (from..to).map(object).collect();
        Ok((Census { version: 50, objects: objects_of_page }, (to < objects).then(|| to.to_string())))
    }

    fn names_at_a_time(&self) -> Option<&AtomicU32> {
        self.names.as_ref()
    }
}

async fn counts(set: &Set) -> usize {
    let census = count(set).await.unwrap();
    assert_eq!(census.version, 50);
    census.objects.len()
}

#[tokio::test(start_paused = true)]
async fn few_are_counted_at_once_and_many_in_pages_from_the_second_time_on() {
    let set = Set::new(1_000, Duration::ZERO);
    for _ in 0..3 {
        assert_eq!((counts(&set).await, set.asked()), (1_000, vec![0]));
    }
    *set.objects.lock().unwrap() = 2_500;
    assert_eq!((counts(&set).await, set.asked()), (2_500, vec![0]));
    for _ in 0..2 {
        assert_eq!((counts(&set).await, set.asked()), (2_500, vec![NAMES; 3]));
    }
    *set.objects.lock().unwrap() = 900;
    assert_eq!((counts(&set).await, set.asked()), (900, vec![NAMES]));
    assert_eq!((counts(&set).await, set.asked()), (900, vec![0]));
    // Those that are few in any case.
    let set = Set { names: None, ..Set::new(2_500, Duration::ZERO) };
    for _ in 0..2 {
        assert_eq!((counts(&set).await, set.asked()), (2_500, vec![0]));
    }
}

#[tokio::test(start_paused = true)]
async fn many_that_do_not_come_in_time_are_counted_in_pages_that_do() {
    // All of them in twice the time, and a page in a part of it.
    let set = Set::new(20_000, REQUEST / 10_000);
    let failed = count(&set).await.unwrap_err();
    assert_eq!((failed.kind(), set.asked()), (ErrorKind::Timeout, vec![0]));
    assert_eq!((counts(&set).await, set.asked()), (20_000, vec![NAMES; 20]));
    // A few, of which each takes long: as many at a time as come in time.
    let set = Set::new(400, REQUEST / 100);
    for asked in [0, NAMES, NAMES / 4] {
        assert_eq!((count(&set).await.unwrap_err().kind(), set.asked()), (ErrorKind::Timeout, vec![asked]));
    }
    for _ in 0..2 {
        assert_eq!(counts(&set).await, 400);
        assert!(set.asked().iter().all(|asked| *asked == NAMES / 16));
    }
}

#[tokio::test(start_paused = true)]
async fn pages_that_expire_are_begun_again_and_then_become_one() {
    let set = Set::new(2_500, Duration::ZERO);
    counts(&set).await;
    set.asked();
    *set.expires.lock().unwrap() = Some(1);
    assert_eq!((counts(&set).await, set.asked()), (2_500, vec![NAMES, NAMES, NAMES, NAMES, NAMES, NAMES, 0]));
}
