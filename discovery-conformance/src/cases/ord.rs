//! ord
use crate::case::cases;
cases! {}
