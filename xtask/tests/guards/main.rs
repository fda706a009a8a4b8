//! Guards: what must hold of the project as a whole, checked by reading its tree and its dependency graph.

mod api;
mod boundaries;
mod commands;
mod contract;
mod house;
mod licences;
mod msrv;
mod usage;
mod workspace;
