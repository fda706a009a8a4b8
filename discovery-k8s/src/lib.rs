//! Kubernetes.
#![allow(dead_code)]
mod config;
mod document;
mod fault;
mod identity;
mod join;
mod readiness;
mod resource;
