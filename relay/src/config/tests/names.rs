//! Misspelled names stop the start; the names of others never do.

use super::super::names::{advice, is_misspelled};
use super::started;

#[test]
fn a_name_that_begins_like_ours_stops_the_start_with_the_nearest_right_name() {
    for (wrong, right) in [
        ("ACCEPTED_NETWORK", "ACCEPTED_NETWORKS"),
        ("XDP_INTERFACE", "XDP_INTERFACES"),
        ("ACCEPTED_NETS", "ACCEPTED_NETWORKS"),
        ("EXT_RELAYHOST", "EXT_RELAY_HOST"),
        ("EXT_RELAY_HOSTS", "EXT_RELAY_HOST"),
        ("RELAY_HOST", "EXT_RELAY_HOST"),
        ("RELAY_HOSTNAME", "RELAY_HOST_NAME"),
        ("OUTGOING_SMTP_LOGN", "OUTGOING_SMTP_LOGIN"),
        ("OUTGOING_SMTP_PASSWORT", "OUTGOING_SMTP_PASSWORD"),
        ("OUTGOING_SMTP_PASSWORDFILE", "OUTGOING_SMTP_PASSWORD"),
        ("OUTGOING_SMTP_PASWORD_FILE", "OUTGOING_SMTP_PASSWORD_FILE"),
        ("USE_TSL", "USE_TLS"),
        ("TLS_VERFIY", "TLS_VERIFY"),
        ("SSL_CERT_KEYS", "SSL_CERT_KEY"),
        ("MAIL_FROM_FDQN", "MAIL_FROM_FQDN"),
        ("LISTEN_STMP", "LISTEN_SMTP"),
        ("LISTEN_PORT", "LISTEN_SMTP"),
        ("DELIVERY_PATIANCE", "DELIVERY_PATIENCE"),
        ("QUEUE_LIFE_TIME", "QUEUE_LIFETIME"),
        ("UPSTREAM_CONNECTION", "UPSTREAM_CONNECTIONS"),
        ("MESSAGE_SIZE_LIMIT", "MESSAGE_SIZE_MAX"),
        ("RECIPIENT_MAX", "RECIPIENTS_MAX"),
        ("SESSION_MAX", "SESSIONS_MAX"),
        ("COMAND_TIMEOUT", "COMMAND_TIMEOUT"),
        ("HOP_MAX", "HOPS_MAX"),
        ("ALLOWED_SENDER", "ALLOWED_SENDERS"),
        ("DKIM_SELEKTOR", "DKIM_SELECTOR"),
        ("AUTO_BAN", "AUTOBAN"),
        ("DNS_SERVER", "DNS_SERVERS"),
        ("LOG_LEVELS", "LOG_LEVEL"),
        ("CONTROL_SOCKETS", "CONTROL_SOCKET"),
        ("STATE_DIRS", "STATE_DIR"),
        ("XPD_MODE", "XDP_MODE"),
        ("accepted_networks", "ACCEPTED_NETWORKS"),
        ("Ext_Relay_Host", "EXT_RELAY_HOST"),
        ("BOUNCE_TOO", "BOUNCE_TO"),
    ] {
        let mistake = started(&[(wrong, "x")]).mistake();
        let expected = format!("{wrong} (environment {wrong}): no such variable; the nearest is {right}");
        assert_eq!(mistake, expected);
    }
}

/// What stands in the environments of shells, containers, service managers and of programs whose environment
/// file is shared.
#[test]
fn what_belongs_to_others_is_left_alone() {
    let foreign = "PATH HOME HOSTNAME TERM PWD SHLVL _ USER LOGNAME SHELL LANG LC_ALL TZ EDITOR PAGER MAIL OLDPWD \
        TMPDIR XDG_RUNTIME_DIR XDG_SESSION_ID DBUS_SESSION_BUS_ADDRESS SESSION_MANAGER DISPLAY SSH_CONNECTION container \
        DEBIAN_FRONTEND RUST_LOG RUST_BACKTRACE CARGO_HOME LD_LIBRARY_PATH MALLOC_ARENA_MAX HTTP_PROXY https_proxy no_proxy \
        INVOCATION_ID JOURNAL_STREAM SYSTEMD_EXEC_PID NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID LISTEN_FDS LISTEN_PID \
        LISTEN_FDNAMES STATE_DIRECTORY RUNTIME_DIRECTORY CACHE_DIRECTORY LOGS_DIRECTORY CONFIGURATION_DIRECTORY MAINPID \
        CREDENTIALS_DIRECTORY MEMORY_PRESSURE_WATCH SSL_CERT_FILE SSL_CERT_DIR TLS_CERT TLS_KEY TLS_CA TLS_CERT_FILE TLS_CRT \
        TLS_PRIVATE_KEY DOCKER_TLS_VERIFY DOCKER_HOST NODE_EXTRA_CA_CERTS REQUESTS_CA_BUNDLE CURL_CA_BUNDLE KUBECONFIG POD_NAME \
        POD_NAMESPACE POD_IP NODE_NAME KUBERNETES_SERVICE_HOST KUBERNETES_SERVICE_PORT KUBERNETES_SERVICE_PORT_HTTPS \
        KUBERNETES_PORT KUBERNETES_PORT_443_TCP KUBERNETES_PORT_443_TCP_PROTO KUBERNETES_PORT_443_TCP_PORT \
        UPSTREAM_SERVICE_HOST UPSTREAM_SERVICE_PORT UPSTREAM_SERVICE_PORT_SMTP UPSTREAM_PORT_25_TCP UPSTREAM_PORT_25_TCP_ADDR \
        QUEUE_SERVICE_HOST QUEUE_PORT_6379_TCP_PROTO EXT_RELAY_SERVICE_HOST XDP_SERVICE_PORT RINGPOST_SERVICE_HOST \
        RINGPOST_PORT_25_TCP_ADDR RINGPOST_BIN SUBMISSION_SERVICE_HOST QUEUE_ENV_VERSION \
        MAIL_FROM_ADDRESS MAIL_FROM_NAME MAIL_HOST MAIL_PORT MAIL_MAILER MAIL_USERNAME MAIL_ENCRYPTION QUEUE_CONNECTION \
        SESSION_DRIVER SESSION_LIFETIME SESSION_SECRET SESSION_COOKIE ALLOWED_HOSTS ALLOWED_ORIGINS DATABASE_URL REDIS_URL SMTP_HOST \
        SMTP_PORT SMTP_USER SMTP_PASS SMTP_FROM SMTP_USERNAME SMTP_SERVER SMTP_TLS SMTP_SECURE LOG_LEVEL_ROOT LOGLEVEL LOG_DIR \
        LOG_FILE LOG_PATH DEBUG PORT HOST BIND ROUTER WORKER WORKERS_PER_CORE WEB_CONCURRENCY GUNICORN_WORKERS USE_SSL TLS ROUTE \
        CLIENT_ID CLIENT_SECRET DATA_DIR COMMAND STATE BARE RELAY RELAY_PORT RELAY_USER MESSAGE MYHOSTNAME POSTFIX_myhostname \
        OPENDKIM_KEY GITHUB_ACTIONS CI BUILD_NUMBER SSL_CERT SSL_KEY SSLKEYLOGFILE GODEBUG JAVA_OPTS PYTHONPATH NPM_TOKEN";
    for name in foreign.split_whitespace() {
        assert!(!is_misspelled(name, "x"), "{name} is not ours (nearest {:?})", advice(name));
    }
    for (name, value) in [
        ("UPSTREAM_PORT", "tcp://10.3.2.1:25"),
        ("QUEUE_PORT", "udp://10.3.2.1:53"),
        ("QUEUE_NAME", "/relay/queue"),
        ("RINGPOST_PORT", "tcp://10.3.2.1:25"),
    ] {
        assert!(!is_misspelled(name, value), "{name}={value}");
    }
}

#[test]
fn an_unknown_name_on_the_command_line_stops_the_start_whatever_it_is() {
    assert_eq!(started(&[]).set("FOO=/bin").mistake(), "FOO (--set FOO): no such variable");
    assert_eq!(
        started(&[]).set("xpd=off").mistake(),
        "xpd (--set xpd): no such variable; the nearest is XDP"
    );
    assert_eq!(started(&[]).set("RECIPIENTS_MAX").mistake(), "RECIPIENTS_MAX: expected --set NAME=VALUE");
}

#[test]
fn wrong_names_are_shown_escaped() {
    let mistake = started(&[]).set("a\u{1b}[31m=1").mistake();
    assert!(!mistake.contains('\u{1b}'), "{mistake}");
}
