//! rdy
use crate::case::cases;
cases! {}
