//! Every bound of the relay in one place, and the assertions that relate them to each other.
//!
//! Nothing a peer sends may grow memory without a bound named here (invariant 4). A bound that an operator
//! may set has its default in `config`; what stands here is fixed, because the code is sized by it.

use std::time::Duration;

/// Octets of the small buffers: one per open session, for commands and replies.
pub const COMMAND_BUFFER_OCTETS: usize = 4 * 1024;
/// Octets of the first larger buffer that a message body is received into.
pub const BODY_BUFFER_OCTETS_MIN: usize = 16 * 1024;
/// Octets of a buffer for one TLS record of the greatest size.
pub const RECORD_BUFFER_OCTETS: usize = 20 * 1024;
/// Octets of plaintext in one TLS record (RFC 8446 §5.1).
pub const RECORD_PLAINTEXT_OCTETS_MAX: usize = 16 * 1024;
/// Octets that a TLS record may add to its plaintext: header, content type, padding, tag (RFC 8446 §5.2; RFC 5246
/// §6.2.3 allows more, which no suite of ours uses).
pub const RECORD_OVERHEAD_OCTETS_MAX: usize = 5 + 256;
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
/// Pieces that one look at a body may make: as many as one `writev` takes.
pub const BODY_PIECES_MAX: usize = 1024;
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
/// Octets allowed for the header fields that we add to a message, where its size is declared upstream.
pub const TRACE_OCTETS: u64 = 1024;
/// Octets of body at which the upstream is claimed even though the header section goes on.
pub const UPSTREAM_CLAIM_OCTETS: usize = 16 * 1024;

/// Wrong or useless commands after which a session is ended with 421.
pub const ERRORS_PER_SESSION_MAX: u32 = 20;
/// NOOP, RSET, VRFY and EHLO between two messages after which a session is ended with 421.
pub const IDLE_COMMANDS_MAX: u32 = 100;
/// Recipients refused for their number after which a session is ended with 421.
pub const RECIPIENTS_OVERSHOOT_MAX: u32 = 1000;

/// How long a tombstone that nobody waits for is kept for a write that it can go with, and a message for others where
/// others come. A few writes' time.
pub const SPOOL_LULL: Duration = Duration::from_millis(2);
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
/// How long a worker keeps an upstream connection while another waits for one and there are too few for each to have its
/// own; less with very many workers.
pub const UPSTREAM_TURN_MAX: Duration = Duration::from_secs(1);
/// Idle time after which `RSET` opens the next flight on a pooled connection.
pub const UPSTREAM_RSET_AFTER: Duration = Duration::from_secs(5);
/// How often the ends of clients' patience are looked at: `DELIVERY_PATIENCE` ends at most this much late.
pub const PATIENCE_TICK: Duration = Duration::from_millis(5);
/// How long an upstream may take nothing of a message that is streamed to it before the spool takes the message over, where
/// `DELIVERY_PATIENCE` is shorter.
pub const UPSTREAM_STALL_MIN: Duration = Duration::from_secs(1);
/// Octets of messages under way that one worker keeps in memory, to fall back on; what is beyond goes to the disk.
pub const KEPT_OCTETS_MAX: usize = 32 * 1024 * 1024;
/// Octets of spooled messages that one worker keeps in memory for their first attempt.
pub const FRESH_OCTETS_MAX: usize = 16 * 1024 * 1024;
/// The largest message of the queue that goes to the upstream with its envelope, before any recipient is taken.
pub const PIPELINED_OCTETS_MAX: u64 = 64 * 1024;
/// Attempts from the queue that one worker has under way.
pub const ATTEMPTS_MAX: usize = 256;
/// Queued messages that one look for old ones passes over.
pub const AGING_LOOK_MESSAGES: usize = 10_000;
/// Messages that have grown old and are looked after at once: their senders are told, or they are returned.
pub const AGING_MAX: usize = 64;
/// After a warning of a delay that could not be sent, such as by the bound on notices.
pub const DELAY_WARNING_PAUSE: Duration = Duration::from_secs(5);
/// How often a spool that does not take mail is tried.
pub const SPOOL_REVIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Rows of the queue that go to a verb at once.
pub const QUEUE_ROWS_MAX: usize = 64;
/// Octets of a message's header section that `queue show` tells.
pub const QUEUE_HEADER_OCTETS_MAX: usize = 16 * 1024;
/// Addresses of one upstream name that are kept.
pub const UPSTREAM_ADDRESSES_MAX: usize = 100;
/// How long a client may take to accept our replies.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
/// After a last reply: how long, and how many octets, a client may still talk before the connection is closed on it.
pub const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);
/// See [`FAREWELL_TIMEOUT`].
pub const FAREWELL_OCTETS_MAX: usize = 1024 * 1024;
/// How long a message may come slower than `SESSION_MIN_RATE`.
pub const SLOW_START: Duration = Duration::from_secs(10);
/// Connections that the kernel keeps for each listening socket until they are accepted.
pub const LISTEN_BACKLOG: i32 = 4096;
/// Clients whose rate one worker remembers; of more the longest unseen are forgotten.
pub const CLIENT_RATES_MAX: usize = 64 * 1024;
/// How long the end of the process waits for the log's target.
pub const LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an upstream has to answer QUIT.
pub const UPSTREAM_QUIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long `stop` waits for open transactions.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The port that means TLS from the first octet (RFC 8314 §7.3).
pub const SUBMISSIONS_PORT: u16 = 465;
/// Longest time for a TLS handshake, with a client or an upstream.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// Octets of a file with a certificate chain or a key.
pub const CERTIFICATE_FILE_OCTETS_MAX: u64 = 1024 * 1024;
/// Rounds of hashing that an upstream's SCRAM may ask for: more would stall the worker.
pub const SCRAM_ITERATIONS_MAX: u32 = 100_000;
/// Challenges of an upstream in one AUTH exchange.
pub const AUTH_CHALLENGES_MAX: u32 = 8;
/// Wrong logins of one client address in [`LOGIN_FAILURES_WITHIN`]; then its logins are put off, unlooked at.
pub const LOGIN_FAILURES_MAX: u32 = 30;
/// Likewise of one user, from wherever they came: more, so that a stranger does not easily lock a user out.
pub const LOGIN_FAILURES_OF_USER_MAX: u32 = 100;
/// See [`LOGIN_FAILURES_MAX`].
pub const LOGIN_FAILURES_WITHIN: Duration = Duration::from_secs(300);
/// Shortest wait before a login that an upstream refused is tried again; doubled with each refusal.
pub const UPSTREAM_LOGIN_WAIT_MIN: Duration = Duration::from_secs(30);
/// Longest such wait.
pub const UPSTREAM_LOGIN_WAIT_MAX: Duration = Duration::from_secs(900);
/// Logins of clients that may wait to be checked.
pub const LOGIN_CHECKS_MAX: usize = 64;
/// How often the certificate's files are looked at.
pub const CERTIFICATE_LOOK: Duration = Duration::from_secs(5);
/// Longest life of an MTA-STS policy (RFC 8461 §3.2: about a year).
pub const STS_LIFE_MAX: Duration = Duration::from_secs(31_557_600);
/// Names of exchangers in one MTA-STS policy.
pub const STS_PATTERNS_MAX: usize = 128;
/// MTA-STS policies that are kept.
pub const STS_POLICIES_MAX: usize = 10_000;
/// Octets of the file that they are kept in; a longer one is not read.
pub const STS_FILE_OCTETS_MAX: u64 = 64 * 1024 * 1024;
/// How long a web server is spared whose policy could not be had (RFC 8461 §3.3).
pub const STS_RETRY: Duration = Duration::from_secs(300);
/// Octets of an access token; in base64 it fits an AUTH line.
pub const TOKEN_OCTETS_MAX: usize = 8192;
/// How long a token is good whose endpoint does not say.
pub const TOKEN_LIFE_DEFAULT: Duration = Duration::from_secs(1800);
/// A token is renewed so long before its end, where its life is long enough.
pub const TOKEN_MARGIN_MIN: Duration = Duration::from_secs(60);
/// Shortest time between two attempts to renew a token; doubled with each failure.
pub const TOKEN_RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest such time.
pub const TOKEN_RETRY_MAX: Duration = Duration::from_secs(300);
/// Configurations with tokens that may wait for their keeper.
pub const TOKEN_SHELVES_MAX: usize = 64;
/// Longest time for a question to the web, TCP and TLS included (RFC 8461 §3.3 asks for a minute).
pub const HTTPS_TIMEOUT: Duration = Duration::from_secs(60);
/// Octets of an answer of the web (RFC 8461 §3.3 asks for 64 KiB).
pub const HTTPS_OCTETS_MAX: usize = 64 * 1024;
/// Rules for upstreams' certificates whose TLS sessions one worker keeps.
pub const TLS_CLIENT_CONFIGS_MAX: usize = 256;
/// TLS sessions of upstreams that one worker keeps for each rule.
pub const TLS_CLIENT_SESSIONS_MAX: usize = 64;

/// Upstreams that the metrics tell apart; further ones share the name `other`.
pub const UPSTREAMS_METERED_MAX: usize = 64;
/// Orders of the control plane that may wait for one worker.
pub const WORKER_ORDERS_MAX: usize = 16;
/// How long a worker may take to answer an order that needs no waiting; past it the worker counts as stuck.
pub const WORKER_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Octets of the configuration file, and of a file that a variable names.
pub const CONFIG_FILE_OCTETS_MAX: u64 = 64 * 1024 * 1024;
/// Wrong items of one list that are named; more are counted.
pub const CONFIG_ITEM_MISTAKES_MAX: usize = 20;

/// Connections to the admin listeners that are served at once.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Octets of the head of an admin request.
pub const ADMIN_REQUEST_OCTETS_MAX: usize = 16 * 1024;
/// Time that an admin client has for the head of its next request.
pub const ADMIN_HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections to the control socket that are served at once; those that wait for a stop do not count.
pub const CONTROL_CONNECTIONS_MAX: usize = 16;
/// Octets of a request on the control socket, line feed included.
pub const CONTROL_LINE_OCTETS_MAX: usize = 16 * 1024;
/// Time that a client of the control socket has for its request, and to take its answer.
pub const CONTROL_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Lines of an answer about the queue that wait for its reader.
pub const CONTROL_LINES_WAITING_MAX: usize = 256;
/// Longest wait for the next line of an answer about the queue, and for its reader to take it.
pub const CONTROL_LINE_TIMEOUT: Duration = Duration::from_secs(300);
/// Octets of a line that `sendmail -bs` passes on in one piece.
pub const SENDMAIL_LINE_OCTETS_MAX: usize = 64 * 1024;
/// Octets of a message that `sendmail` takes from its standard input.
pub const SENDMAIL_OCTETS_MAX: usize = 512 * 1024 * 1024;
/// Verbs that wait for the stop at once.
pub const STOP_WAITERS_MAX: usize = 64;
/// How often the control plane looks at the workers when nobody asks: for rates and for the watchdog.
pub const PULSE: Duration = Duration::from_secs(5);
/// The time over which rates are told.
pub const RATE_WINDOW: Duration = Duration::from_secs(60);
/// Longest time that `reload --confirm` may wait for the confirmation.
pub const CONFIRM_MAX: Duration = Duration::from_secs(24 * 3600);

/// Questions of all workers that may wait for the resolver.
pub const DNS_QUERIES_MAX: usize = 1024;
/// Look-ups that run at once.
pub const DNS_LOOKUPS_MAX: usize = 256;
/// Names that a worker knows at once, for each kind of question.
pub const DNS_CACHE_NAMES_MAX: usize = 4096;
/// TLSA records of one host that are used.
pub const TLSA_RECORDS_MAX: usize = 32;
/// Mail exchangers of one name whose addresses are looked up.
pub const DNS_EXCHANGERS_MAX: usize = 20;
/// Longest wait for one answer of a name server.
pub const DNS_QUERY_TIMEOUT: Duration = Duration::from_secs(4);
/// Longest time of one look-up as a whole: exchangers, their addresses, all attempts.
pub const DNS_LOOKUP_TIMEOUT: Duration = Duration::from_secs(20);
/// Shortest time that an answer is used, whatever its TTL.
pub const DNS_TTL_MIN: Duration = Duration::from_secs(5);
/// Longest time that an answer is used, whatever its TTL.
pub const DNS_TTL_MAX: Duration = Duration::from_secs(3600);
/// How long "no such name" and "takes no mail" are used.
pub const DNS_NEGATIVE_TTL: Duration = Duration::from_secs(30);
/// How long after a passing failure the name is asked again.
pub const DNS_TRANSIENT_TTL: Duration = Duration::from_secs(5);
/// How long a good answer serves on while name servers fail.
pub const DNS_STALE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Octets of one value in a log line, before escaping; what is longer is cut and marked.
pub const LOG_VALUE_OCTETS_MAX: usize = 1024;
/// Octets of one log line; fields that do not fit are left out and the line says so.
pub const LOG_LINE_OCTETS_MAX: usize = 16 * 1024;
/// Octets of log lines that one thread may have waiting; what does not fit is dropped and counted.
pub const LOG_PENDING_OCTETS_MAX: usize = 1024 * 1024;
/// Waiting octets at which the log's writer is woken at once.
pub const LOG_BATCH_OCTETS: usize = 32 * 1024;
/// How long the log's writer waits for more lines after the first.
pub const LOG_BATCH_WAIT: Duration = Duration::from_millis(20);

/// Octets of a message that its notice returns; of a longer one the header section alone goes back, cut at as many.
pub const NOTICE_ORIGINAL_OCTETS_MAX: usize = 64 * 1024;
/// Recipients that the text of a notice names; its report names all.
pub const NOTICE_RECIPIENTS_SHOWN_MAX: usize = 50;
/// Notices of one worker in a second.
pub const NOTICES_PER_SECOND: u32 = 20;
/// Notices of one worker that may go at once.
pub const NOTICES_BURST: u32 = 1000;
/// Time in which one notice may go to one address; more wait.
pub const NOTICE_PER_ADDRESS: Duration = Duration::from_secs(6);
/// Notices that may go to one address at once.
pub const NOTICES_PER_ADDRESS_BURST: u32 = 100;
/// Addresses whose notices one worker counts.
pub const NOTICE_ADDRESSES_MAX: usize = 8192;

/// Sources whose offences are counted at once (`AUTOBAN`); the one that offended longest ago is forgotten.
pub const AUTOBAN_SOURCES_MAX: usize = 16_384;
/// Bans that stand at once; the one that would end first gives way.
pub const BANS_MAX: usize = 8192;
/// How often the gate's thread looks at its ring, its bans and the interfaces.
pub const GATE_TICK: Duration = Duration::from_millis(100);
/// Refused packets that each CPU may report in one tick.
pub const GATE_SAMPLES_PER_TICK: u64 = 25;
/// How long `gate trace` waits for a refusal before it asks again.
pub const GATE_TRACE_WAIT: Duration = Duration::from_secs(2);
/// Offences that wait to be counted; more are lost, as a flood of them is counted by its part.
pub const OFFENCES_PENDING_MAX: usize = 1024;
/// Sampled refusals that are kept to be looked at.
pub const GATE_EVENTS_MAX: usize = 1024;
/// Dropped sources that are kept to be looked at.
pub const GATE_SOURCES_MAX: usize = 1024;

// A command line must fit the buffer that it is assembled in, and so must a reply line.
const _: () = assert!(TOKEN_OCTETS_MAX * 4 / 3 + 512 < AUTH_LINE_OCTETS_MAX);
const _: () = assert!(COMMAND_LINE_OCTETS_MAX <= COMMAND_BUFFER_OCTETS);
const _: () = assert!(REPLY_LINE_OCTETS_MAX <= COMMAND_BUFFER_OCTETS);
const _: () = assert!(COMMAND_BUFFER_OCTETS < BODY_BUFFER_OCTETS_MIN);
const _: () = assert!(BODY_BUFFER_OCTETS_MIN < BODY_BUFFER_OCTETS_MAX);
// A record of the greatest size fits the buffer that is kept for one.
const _: () = assert!(RECORD_PLAINTEXT_OCTETS_MAX + RECORD_OVERHEAD_OCTETS_MAX <= RECORD_BUFFER_OCTETS);
const _: () =
    assert!(BODY_BUFFER_OCTETS_MIN <= RECORD_BUFFER_OCTETS && RECORD_BUFFER_OCTETS < BODY_BUFFER_OCTETS_MAX);
// The upstream is claimed before the held-back header section may be refused for its size.
const _: () = assert!(UPSTREAM_CLAIM_OCTETS < HEADER_SECTION_OCTETS_MAX);
const _: () = assert!(PATH_OCTETS_MAX + 2 * DSN_PARAMETER_OCTETS_MAX < COMMAND_LINE_OCTETS_MAX);
// Mail that is under way may pin a good deal more than one message of the default greatest size.
const _: () = assert!(KEPT_OCTETS_MAX > BODY_BUFFER_OCTETS_MAX * 8);
const _: () = assert!(PATIENCE_TICK.as_millis() * 10 <= TICK.as_millis());
// A slow client is put off long before a client that waits for a connection gives up.
const _: () = assert!(UPSTREAM_HOLD_MAX.as_secs() < UPSTREAM_WAIT_MAX.as_secs());
// A worker that answers late is known as stuck before the next look at it.
const _: () = assert!(WORKER_ANSWER_TIMEOUT.as_secs() < PULSE.as_secs());
// A look-up leaves room for a second attempt at a name server.
const _: () = assert!(2 * DNS_QUERY_TIMEOUT.as_secs() < DNS_LOOKUP_TIMEOUT.as_secs());
const _: () =
    assert!(DNS_TTL_MIN.as_secs() < DNS_TTL_MAX.as_secs() && DNS_TTL_MAX.as_secs() < DNS_STALE_MAX.as_secs());
// Every character of a value may become an escape of ten octets, and the value must still fit its line.
const _: () = assert!(LOG_VALUE_OCTETS_MAX * 10 + 512 < LOG_LINE_OCTETS_MAX);
const _: () =
    assert!(2 * LOG_LINE_OCTETS_MAX <= LOG_BATCH_OCTETS && LOG_BATCH_OCTETS < LOG_PENDING_OCTETS_MAX);
