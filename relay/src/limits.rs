//! Every bound of the relay in one place, and the assertions that relate them to each other.
//!
//! Nothing a peer sends may grow memory without a bound named here (invariant 4). A bound that an operator
//! may set has its default in `config`; what stands here is fixed, because the code is sized by it.

use std::time::Duration;

/// Octets of the small buffers: one per open session, for commands and replies.
pub const COMMAND_BUFFER_OCTETS: usize = 4 * 1024;
/// Octets of the first larger buffer that a message body is received into.
pub const BODY_BUFFER_OCTETS_MIN: usize = 16 * 1024;
/// Octets of the largest buffer that a message body is received into.
pub const BODY_BUFFER_OCTETS_MAX: usize = 128 * 1024;

/// Longest command line, CRLF included. RFC 5321 §4.5.3.1.4 asks for 512; DSN, SMTPUTF8 and SIZE add to it.
pub const COMMAND_LINE_OCTETS_MAX: usize = 2048;
/// Longest line of an AUTH exchange, CRLF included (RFC 4954 §4).
pub const AUTH_LINE_OCTETS_MAX: usize = 12_288;
/// Longest reply line taken from an upstream, CRLF included (RFC 5321 §4.5.3.1.5 asks for 512).
pub const REPLY_LINE_OCTETS_MAX: usize = 2048;
/// Lines of one upstream reply that are kept; more lines are a violation.
pub const REPLY_LINES_MAX: usize = 128;
/// Octets of replies gathered for one client before they must be sent.
pub const REPLY_BUFFER_OCTETS_MAX: usize = 32 * 1024;

/// Longest local part (RFC 5321 §4.5.3.1.1).
pub const LOCAL_PART_OCTETS_MAX: usize = 64;
/// Longest domain (RFC 5321 §4.5.3.1.2).
pub const DOMAIN_OCTETS_MAX: usize = 255;
/// Longest path, angle brackets included (RFC 5321 §4.5.3.1.3).
pub const PATH_OCTETS_MAX: usize = 256;
/// Longest ENVID or ORCPT in xtext (RFC 3461 §4.2, §4.4).
pub const DSN_PARAMETER_OCTETS_MAX: usize = 500;

/// Octets of a header section that are held back while it is judged; a longer one is refused.
pub const HEADER_SECTION_OCTETS_MAX: usize = 256 * 1024;
/// Octets of body at which the upstream is claimed even though the header section goes on.
pub const UPSTREAM_CLAIM_OCTETS: usize = 16 * 1024;

/// Wrong or useless commands after which a session is ended with 421.
pub const ERRORS_PER_SESSION_MAX: u32 = 20;
/// NOOP, RSET, VRFY and EHLO between two messages after which a session is ended with 421.
pub const IDLE_COMMANDS_MAX: u32 = 100;
/// Recipients refused for their number after which a session is ended with 421.
pub const RECIPIENTS_OVERSHOOT_MAX: u32 = 1000;

/// How often deadlines are looked at. A deadline fires at most this much late.
pub const TICK: Duration = Duration::from_millis(250);
/// Time a client has for its PROXY header.
pub const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the upstream's banner and for its reply to EHLO (RFC 5321 §4.5.3.2.1).
pub const UPSTREAM_GREETING_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest wait for the upstream's reply to MAIL or RCPT (RFC 5321 §4.5.3.2.2, .3).
pub const UPSTREAM_ENVELOPE_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest wait for the upstream's reply to DATA (RFC 5321 §4.5.3.2.4).
pub const UPSTREAM_DATA_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest wait for one block of a message to be taken (RFC 5321 §4.5.3.2.5).
pub const UPSTREAM_BLOCK_TIMEOUT: Duration = Duration::from_secs(180);
/// Longest wait for the upstream's verdict after the end of data (RFC 5321 §4.5.3.2.6).
pub const UPSTREAM_VERDICT_TIMEOUT: Duration = Duration::from_secs(600);
/// Longest wait for a TCP connection to an upstream address.
pub const UPSTREAM_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may hold an upstream connection before its header section is complete.
pub const UPSTREAM_HOLD_MAX: Duration = Duration::from_secs(5);
/// How long a transaction waits for a free upstream connection before the client hears 451.
pub const UPSTREAM_WAIT_MAX: Duration = Duration::from_secs(30);
/// Idle time after which `RSET` opens the next flight on a pooled connection.
pub const UPSTREAM_RSET_AFTER: Duration = Duration::from_secs(5);
/// Addresses of one upstream name that are kept.
pub const UPSTREAM_ADDRESSES_MAX: usize = 100;
/// How long `stop` waits for open transactions.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Clients whose rate one worker remembers; of more the longest unseen are forgotten.
pub const CLIENT_RATES_MAX: usize = 64 * 1024;

/// Octets of the configuration file, and of a file that a variable names.
pub const CONFIG_FILE_OCTETS_MAX: u64 = 64 * 1024 * 1024;
/// Wrong items of one list that are named; more are counted.
pub const CONFIG_ITEM_MISTAKES_MAX: usize = 20;

// A command line must fit the buffer that it is assembled in, and so must a reply line.
const _: () = assert!(COMMAND_LINE_OCTETS_MAX <= COMMAND_BUFFER_OCTETS);
const _: () = assert!(REPLY_LINE_OCTETS_MAX <= COMMAND_BUFFER_OCTETS);
const _: () = assert!(COMMAND_BUFFER_OCTETS < BODY_BUFFER_OCTETS_MIN);
const _: () = assert!(BODY_BUFFER_OCTETS_MIN < BODY_BUFFER_OCTETS_MAX);
// The upstream is claimed before the held-back header section may be refused for its size.
const _: () = assert!(UPSTREAM_CLAIM_OCTETS < HEADER_SECTION_OCTETS_MAX);
const _: () = assert!(PATH_OCTETS_MAX + 2 * DSN_PARAMETER_OCTETS_MAX < COMMAND_LINE_OCTETS_MAX);
// A slow client is put off long before a client that waits for a connection gives up.
const _: () = assert!(UPSTREAM_HOLD_MAX.as_secs() < UPSTREAM_WAIT_MAX.as_secs());
