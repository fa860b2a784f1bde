//! What shapes a variable's value may have, and what each is called where something else was written.

/// The shape of a variable's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One of these words.
    Word(&'static [&'static str]),
    /// `yes` or `no`, in any of their spellings.
    Boolean,
    /// A whole number, at least the first and at most the second.
    Integer(u64, u64),
    /// A duration.
    Duration,
    /// A duration, or one of these words.
    DurationOr(&'static [&'static str]),
    /// Durations.
    Durations,
    /// A size in octets.
    Size,
    /// Hundredths of the file system, or a size.
    PercentOrSize,
    /// Events in a period.
    Rate,
    /// `10 in 1m for 1h`.
    Autoban,
    /// A host name.
    HostName,
    /// CIDRs and single addresses.
    Networks,
    /// Local addresses with ports.
    Listen,
    /// Upstream hosts, in order of preference, or `mx`.
    Upstreams,
    /// Name servers.
    NameServers,
    /// Mail addresses and `@domain`s.
    AddressPatterns,
    /// Mail addresses.
    Addresses,
    /// A mail address, or one of these words.
    AddressOr(&'static [&'static str]),
    /// SHA-256 fingerprints.
    Fingerprints,
    /// Names of network interfaces.
    Interfaces,
    /// A path of the file system.
    Path,
    /// A log target.
    LogTarget,
    /// Any text.
    Text,
    /// A text that is never shown.
    Secret,
    /// `user:password` lines, never shown.
    SecretLines,
    /// `user: address…` lines.
    UserLines,
    /// An address of the web.
    HttpsUrl,
    /// PEM text, or a path.
    Pem,
    /// PEM text, or a path; the text is never shown.
    SecretPem,
    /// Tables of the TOML file.
    Tables,
}

impl Kind {
    /// What is expected, as the words after "expected".
    #[must_use]
    pub fn expected(self) -> String {
        let text = match self {
            Self::Word(words) => return one_of(words),
            Self::Boolean => "yes or no (on, off, true, false, 1, 0)",
            Self::Integer(min, u64::MAX) => return format!("a whole number of at least {min}"),
            Self::Integer(min, max) => return format!("a whole number from {min} to {max}"),
            Self::Duration => DURATION,
            Self::DurationOr(words) => return format!("{DURATION}, or {}", one_of(words)),
            Self::Durations => "durations such as 1m 5m 10m",
            Self::Size => "a size such as 512K or 25M",
            Self::PercentOrSize => "a percentage from 1% to 100%, or a size such as 10G",
            Self::Rate => "a rate such as 100/s or 14/s burst 50, or off",
            Self::Autoban => "something like 10 in 1m for 1h, or off",
            Self::HostName => "a host name: letters, digits, hyphens and dots",
            Self::Networks => {
                "IPv4 and IPv6 networks such as 10.0.0.0/8 or 2001:db8::/32, or single addresses"
            }
            Self::Listen => "addresses with ports such as 0.0.0.0:25 [::]:25, or off",
            Self::Upstreams => "hosts such as smtp.example.com:587, [smtp.example.com], 192.0.2.1, or mx",
            Self::NameServers => "addresses of name servers such as 192.0.2.53 or [2001:db8::53]:5353",
            Self::AddressPatterns => "mail addresses and @domains",
            Self::Addresses => "mail addresses",
            Self::AddressOr(words) => return format!("a mail address, or {}", one_of(words)),
            Self::Fingerprints => "SHA-256 fingerprints: 64 hexadecimal digits, colons allowed",
            Self::Interfaces => "names of network interfaces of at most 15 characters",
            Self::Path => "an absolute path",
            Self::LogTarget => "stdout, syslog, journald, or an absolute path",
            Self::Text | Self::Secret => "a text",
            Self::SecretLines => "lines of the form user:password-or-hash",
            Self::HttpsUrl => "an address such as https://login.example.com/token",
            Self::UserLines => "lines of the form user: addresses and @domains",
            Self::Pem | Self::SecretPem => "PEM text, or the path of a readable file",
            Self::Tables => "tables, in the TOML file only",
        };
        text.to_owned()
    }

    /// Whether the value is made of items between blanks and commas.
    #[must_use]
    pub fn is_list(self) -> bool {
        matches!(
            self,
            Self::Durations
                | Self::Networks
                | Self::Listen
                | Self::Upstreams
                | Self::NameServers
                | Self::AddressPatterns
                | Self::Addresses
                | Self::Fingerprints
                | Self::Interfaces
        )
    }

    /// Whether the value must never be shown.
    #[must_use]
    pub fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::SecretLines | Self::SecretPem)
    }

    /// Whether the value's white space counts.
    #[must_use]
    pub fn is_verbatim(self) -> bool {
        matches!(self, Self::Secret | Self::SecretLines | Self::UserLines | Self::Pem | Self::SecretPem)
    }
}

fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => (*word).to_owned(),
        [head @ .., last] => format!("{} or {last}", head.join(", ")),
    }
}

const DURATION: &str = "a duration such as 500ms, 30s, 5m, 2h or 5d";
