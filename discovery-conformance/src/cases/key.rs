//! key
use crate::case::cases;
cases! {}
