//! Why there is no gate, or not on some interface, and with which exit code the daemon says so.

use std::fmt;
use std::io;

use ringpost_ebpf::compile::CompileError;

use super::advice::{self, AttachMode};
use super::caps::Capability;
use super::host::Refused;
use super::loaded::LoadError;

/// Why the gate does not stand. With `XDP=require` the daemon ends with [`Self::exit_code`]; with `auto` it says so and serves.
#[derive(Debug)]
pub enum GateError {
    /// This build has no object embedded.
    NotBuilt,
    /// Capabilities that loading needs are missing.
    NoPermission(Vec<Capability>),
    /// The kernel does not take the program or its maps.
    Load(LoadError),
    /// The kernel does not say what interfaces there are.
    Host(io::Error),
    /// No interface of this host has a listen address that strangers can reach.
    NoInterface,
    /// An interface named in `XDP_INTERFACES` cannot take a program.
    Refused(Refused),
    /// An interface did not take the program.
    Attach {
        /// Its name.
        interface: String,
        /// What was tried last.
        mode: AttachMode,
        /// What the kernel said.
        error: io::Error,
    },
    /// The lists do not fit a table.
    Lists(CompileError),
    /// A listen port that must never be filtered.
    Ssh,
    /// It was not loaded at the start, and what that needs is given up since.
    OnlyAtStart,
}

impl GateError {
    /// The exit code of INTERFACE §6: 77 no permission, 78 configuration, 71 the kernel lacks it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let of_kernel = |error: &io::Error| match error.kind() {
            io::ErrorKind::PermissionDenied => 77,
            _ => 71,
        };
        match self {
            Self::NoPermission(_) => 77,
            Self::Attach { error, .. } | Self::Load(LoadError::Refused { error, .. }) => of_kernel(error),
            Self::Lists(_) | Self::Ssh => 78,
            Self::NotBuilt | Self::Load(LoadError::Object(_)) | Self::Host(_) | Self::NoInterface => 71,
            Self::Refused(_) | Self::OnlyAtStart => 71,
        }
    }
}

impl fmt::Display for GateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBuilt => {
                f.write_str("this build has no gate: `cargo xtask build` with a toolchain for BPF embeds it")
            }
            Self::NoPermission(missing) => {
                let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
                write!(f, "no permission to load the gate: {} missing", names.join(", "))
            }
            Self::Load(error) => write!(f, "the kernel does not take the gate: {error}"),
            Self::Host(error) => write!(f, "the kernel does not tell its interfaces: {error}"),
            Self::NoInterface => {
                f.write_str("no interface leads to the listen addresses: name them in XDP_INTERFACES")
            }
            Self::Refused(refused) => write!(f, "XDP_INTERFACES: {refused}"),
            Self::Attach { interface, mode, error } => {
                let advice = advice::of(error.raw_os_error().unwrap_or(0), *mode);
                write!(f, "{interface}: no gate in {} mode: {error}: {advice}", mode.word())
            }
            Self::Lists(error) => error.fmt(f),
            Self::OnlyAtStart => f.write_str("the gate is loaded at the start alone: restart the relay"),
            Self::Ssh => f.write_str("a listener on port 22: a gate there could lock you out"),
        }
    }
}

impl std::error::Error for GateError {}

impl From<LoadError> for GateError {
    fn from(error: LoadError) -> Self {
        Self::Load(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attach(errno: i32) -> GateError {
        let error = io::Error::from_raw_os_error(errno);
        GateError::Attach { interface: "eth0".to_owned(), mode: AttachMode::Native, error }
    }

    #[test]
    fn another_program_is_71_and_no_permission_77() {
        assert_eq!(attach(libc::EBUSY).exit_code(), 71);
        assert_eq!(attach(libc::EPERM).exit_code(), 77);
        let missing = GateError::NoPermission(vec![Capability::Bpf, Capability::Perfmon]);
        assert_eq!(missing.exit_code(), 77);
        assert!(missing.to_string().contains("CAP_BPF, CAP_PERFMON"), "{missing}");
    }

    #[test]
    fn an_attach_error_names_interface_mode_and_advice() {
        let text = attach(libc::EBUSY).to_string();
        assert!(
            text.contains("eth0") && text.contains("native") && text.contains("another XDP program"),
            "{text}"
        );
    }
}
