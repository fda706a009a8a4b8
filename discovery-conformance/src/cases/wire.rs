//! wire
use crate::case::cases;
cases! {}
