//! The real daemon between real peers. What this machine does not have is skipped visibly.

mod clients;
mod haproxy;
mod opensmtpd;
mod postfix;
mod sendmail;
mod sink_and_source;
