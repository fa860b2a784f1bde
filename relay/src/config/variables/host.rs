//! The gate and the log. A part of the table in `variables`.

use super::super::features::Feature;
use super::super::kind::Kind;
use super::super::variable::{Section, Variable, Without};
use super::OFF;

/// `XDP`.
pub static XDP: Variable = Variable::new("XDP", Section::Gate, Kind::Word(&["auto", "require", "off"]), "auto", "`auto`: attach where it can and say what it did; the daemon checks the same lists again in any case. `require`: refuse to start without. All of the gate needs a build that has it: `ringpost version` tells.").needs(Feature::Gate, Without::RefusedUnless(&["auto", "off"]));

/// `XDP_INTERFACES`.
pub static XDP_INTERFACES: Variable =
    Variable::new("XDP_INTERFACES", Section::Gate, Kind::Interfaces, "", "Names of network interfaces.")
        .else_said("those that own or route to the listen addresses")
        .needs(Feature::Gate, Without::Ineffective);

/// `XDP_MODE`.
pub static XDP_MODE: Variable = Variable::new(
    "XDP_MODE",
    Section::Gate,
    Kind::Word(&["auto", "native", "generic", "offload"]),
    "auto",
    "How the program is attached; `auto`: native, else generic.",
)
.needs(Feature::Gate, Without::Ineffective);

/// `XDP_ACTION`.
pub static XDP_ACTION: Variable = Variable::new(
    "XDP_ACTION",
    Section::Gate,
    Kind::Word(&["drop", "reset", "count"]),
    "drop",
    "`drop`: silently; `reset`: answer with a TCP reset; `count`: let it pass and count it.",
)
.needs(Feature::Gate, Without::Ineffective);

/// `XDP_SYN_RATE`.
pub static XDP_SYN_RATE: Variable = Variable::new(
    "XDP_SYN_RATE",
    Section::Gate,
    Kind::Rate,
    "",
    "New connections per second and source: `200/s burst 400`.",
)
.needs(Feature::Gate, OFF);

/// `AUTOBAN`.
pub static AUTOBAN: Variable = Variable::new(
    "AUTOBAN",
    Section::Gate,
    Kind::Autoban,
    "off",
    "`10 in 1m for 1h`: failed logins or protocol abuse ban the source in the kernel; where there is no gate, the \
     daemon closes its connections.",
);

/// `LOG_TARGET`.
pub static LOG_TARGET: Variable = Variable::new(
    "LOG_TARGET",
    Section::Log,
    Kind::LogTarget,
    "stdout",
    "`stdout`, `syslog`, `journald`, or a file.",
);

/// `LOG_FORMAT`.
pub static LOG_FORMAT: Variable = Variable::new(
    "LOG_FORMAT",
    Section::Log,
    Kind::Word(&["text", "json"]),
    "text",
    "How a line is written.",
);

/// `LOG_LEVEL`.
pub static LOG_LEVEL: Variable = Variable::new(
    "LOG_LEVEL",
    Section::Log,
    Kind::Word(&["error", "warn", "info", "debug", "trace"]),
    "info",
    "The least severe event that is written.",
);
