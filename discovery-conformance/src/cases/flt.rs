//! flt
use crate::case::cases;
cases! {}
