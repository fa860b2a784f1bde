//! TLS and logins against the real daemon: every level against every defect, injection both ways, certificates.

mod beside_postfix;
mod certificates;
mod clients;
mod dane;
mod inbound;
mod injection;
mod levels;
mod login_in;
mod login_out;
mod memory;
mod mta_sts;
mod profile;
mod provider;
mod requiretls;
mod secrets;
mod selftest;
mod tls_required;
mod tokens;
