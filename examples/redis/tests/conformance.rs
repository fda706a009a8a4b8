//! The conformance suite on a server of its own.

mod support;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use libtest_mimic::{Arguments, Completion, Trial};
use support::server::{MISSING, Server, is_installed};
use support::world::OnRedis;

fn main() -> ExitCode {
    if !is_installed() {
        println!("{MISSING}");
        let skipped = Trial::ignorable_test("redis", || Ok(Completion::ignored_with(MISSING)));
        return libtest_mimic::run(&Arguments::from_args(), vec![skipped]).exit_code();
    }
    discovery_conformance::harness::main(vec![Arc::new(OnRedis { server: Server::start(), worlds: AtomicU64::new(0) })])
}
