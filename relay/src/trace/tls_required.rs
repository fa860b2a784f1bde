//! `TLS-Required: No` (RFC 8689 §3): one field of that name, with that value and nothing else.
//!
//! It must not decide what follows from it.

/// The `TLS-Required:` fields of a message (RFC 8689 §3).
#[derive(Debug, Clone, Default)]
pub(super) struct TlsRequired {
    count: u32,
    /// The lines that are read now are of such a field.
    is_open: bool,
    value: Value,
}

/// How much of `No`, in any case and with spaces around it, a value is so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Value {
    #[default]
    Empty,
    N,
    No,
    Other,
}

impl TlsRequired {
    /// A field of that name begins.
    pub(super) fn begin(&mut self) {
        self.count += 1;
        self.is_open = true;
    }

    /// Another field begins.
    pub(super) fn end(&mut self) {
        self.is_open = false;
    }

    /// Looks at octets behind the colon of whichever field is read.
    pub(super) fn read(&mut self, octets: &[u8]) {
        if !self.is_open {
            return;
        }
        for octet in octets {
            self.value = match (self.value, octet) {
                (Value::Empty | Value::No, b' ' | b'\t' | b'\r' | b'\n') => self.value,
                (Value::Empty, b'n' | b'N') => Value::N,
                (Value::N, b'o' | b'O') => Value::No,
                _ => Value::Other,
            };
        }
    }

    /// Whether there was one such field, and it says so.
    pub(super) fn is_no(&self) -> bool {
        self.count == 1 && self.value == Value::No
    }
}
