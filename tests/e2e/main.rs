//! The real daemon over loopback, one promise or few a file, judged at the sink.

mod attempt;
mod chunking;
mod client_gone;
mod commands;
mod custody;
mod cuts;
mod dialogs;
mod eight_bit;
mod end_of_data;
mod exchangers;
mod failover;
mod hybrid;
mod ladder;
mod limits;
mod logs;
mod misconfigured;
mod networks;
mod observation;
mod operation;
mod pass;
mod pipelining;
mod proxy;
mod queue;
mod reuse;
mod trace;
mod upstream_manners;
