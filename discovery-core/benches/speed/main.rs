//! What the operations of a service cost, by criterion: see `docs/benchmarks.md`.

#[path = "../common/changing.rs"]
mod changing;
#[path = "../common/wall_clock.rs"]
mod clock;
#[path = "../common/prefixes.rs"]
mod prefixes;
#[path = "../common/record.rs"]
mod record;
#[path = "../common/registering.rs"]
mod registering;
#[path = "../common/scripted.rs"]
mod scripted;

mod change;
mod fleet_in_memory;
mod load;
mod register;

use criterion::{Criterion, criterion_group, criterion_main};

criterion_group! {
    name = speed;
    config = Criterion::default();
    targets = load::load, load::pick, change::delivered, change::prefix_views, change::through_threads, register::thousand
}
criterion_main!(speed);
