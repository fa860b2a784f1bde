//! What to do about an interface that does not take the program: the kernel only says a number.

/// What attaching was tried as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// In the kernel's stack.
    Generic,
    /// On the card.
    Offload,
}

impl AttachMode {
    /// The word of `gate status` and of the metrics' label `mode`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offload => "offload",
        }
    }
}

/// What `errno` of an attempt in this mode means, and what helps.
#[must_use]
pub fn of(errno: i32, mode: AttachMode) -> &'static str {
    match (errno, mode) {
        (libc::EBUSY | libc::EEXIST, _) => {
            "another XDP program is there and stays: `bpftool net` shows it, `bpftool link detach` removes it"
        }
        (libc::EOPNOTSUPP, AttachMode::Native) => {
            "the driver has no native XDP: XDP_MODE=generic works with every driver"
        }
        (libc::EOPNOTSUPP, AttachMode::Offload) | (libc::EINVAL, AttachMode::Offload) => {
            "the card cannot run programs: XDP_MODE=native or auto"
        }
        (libc::EOPNOTSUPP, AttachMode::Generic) => {
            "the interface takes no XDP at all: name others in XDP_INTERFACES"
        }
        (libc::ERANGE, _) => {
            "the MTU is too large for the driver's XDP: lower it, or kernel 5.18 for multi-buffer frames"
        }
        (libc::EINVAL, AttachMode::Native) => {
            "the driver refused: mostly an MTU over about 3,500, too many or too few queues (ethtool -L), or LRO \
             (ethtool -K lro off); before kernel 5.9 there are no links for XDP"
        }
        (libc::EINVAL, AttachMode::Generic) => "before kernel 5.9 there are no links for XDP",
        (libc::ENOMEM, _) => {
            "not enough memory or queues: a driver may want one transmit queue for each CPU (ethtool -L)"
        }
        (libc::ENOSPC, _) => "the driver has too few free queues for XDP: fewer channels (ethtool -L)",
        (libc::EPERM | libc::EACCES, _) => "no permission: CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are needed",
        (libc::ENODEV, _) => "the interface went away",
        _ => "the driver's reason is in the kernel's log (dmesg)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_refusals_come_with_advice_of_their_own() {
        let unknown = of(libc::EIO, AttachMode::Native);
        for errno in [
            libc::EBUSY,
            libc::EEXIST,
            libc::EOPNOTSUPP,
            libc::ERANGE,
            libc::EINVAL,
            libc::ENOMEM,
            libc::ENOSPC,
            libc::EPERM,
            libc::EACCES,
            libc::ENODEV,
        ] {
            assert_ne!(of(errno, AttachMode::Native), unknown, "{errno}");
        }
    }
}
