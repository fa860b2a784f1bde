//! What this build can do. A variable that needs more is known and checked all the same, and says so when it
//! is switched on. Whoever lands a feature turns its answer in [`Features::THIS_BUILD`].

/// A part of ringpost that some variables need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// The durable spool, its retries and notices.
    Spool,
    /// TLS on both sides.
    Tls,
    /// AUTH on both sides, and with it submission.
    Auth,
    /// The XDP gate.
    Gate,
    /// Delivery to the recipients' own mail exchangers.
    RecipientMx,
    /// `MAIL_FROM_FQDN`.
    Rewrite,
    /// `ROUTES`.
    Routes,
    /// `ALWAYS_BCC`.
    Bcc,
    /// Signatures.
    Dkim,
}

impl Feature {
    /// The feature as the subject of "… is not in this build".
    #[must_use]
    pub fn subject(self) -> &'static str {
        match self {
            Self::Spool => "the spool",
            Self::Tls => "TLS",
            Self::Auth => "AUTH",
            Self::Gate => "the gate",
            Self::RecipientMx => "delivery to the recipients' own MX",
            Self::Rewrite => "rewriting of senders",
            Self::Routes => "routing by domain",
            Self::Bcc => "ALWAYS_BCC",
            Self::Dkim => "DKIM signing",
        }
    }
}

/// A set of features.
#[derive(Debug, Clone, Copy)]
pub struct Features(fn(Feature) -> bool);

impl Features {
    /// What this build can do.
    pub const THIS_BUILD: Self = Self(|feature| match feature {
        Feature::RecipientMx | Feature::Tls | Feature::Auth | Feature::Spool => true,
        Feature::Gate => crate::gate::object::OBJECT.is_some(),
        Feature::Rewrite | Feature::Routes | Feature::Bcc | Feature::Dkim => false,
    });

    /// What a build with a toolchain for BPF can do: the reference is the same wherever it is written.
    pub const BEST_BUILD: Self = Self(|feature| feature == Feature::Gate || Self::THIS_BUILD.has(feature));

    /// Everything that there is a variable for: what the tests of later parts check against.
    #[cfg(test)]
    pub(crate) const ALL: Self = Self(|_| true);

    /// The set of those that the function says yes to.
    #[cfg(test)]
    pub(crate) const fn of(has: fn(Feature) -> bool) -> Self {
        Self(has)
    }

    /// Whether the feature is there.
    #[must_use]
    pub fn has(self, feature: Feature) -> bool {
        (self.0)(feature)
    }
}
