//! The harness: starts the real daemon on free ports, scripts upstreams and clients, and judges what arrived.

pub mod dialog;
