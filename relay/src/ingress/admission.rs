//! How many sessions there are, of the whole process and of each client: the one table that workers share.
//!
//! Touched twice a connection, never per command or message.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::policy::acl::canonical;

/// The open sessions of the process.
#[derive(Debug, Default)]
pub struct Admission {
    open: AtomicU32,
    clients: Mutex<HashMap<IpAddr, u32>>,
}

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// `SESSIONS_MAX` is reached.
    Process,
    /// `SESSIONS_PER_CLIENT_MAX` is reached.
    Client,
}

/// A place in the table, given back when dropped.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    client: IpAddr,
}

impl Admission {
    /// Lets a client in, unless the process or the client has its number of sessions.
    ///
    /// # Errors
    /// Which of the two bounds is reached.
    pub fn admit(
        self: &Arc<Self>,
        client: IpAddr,
        process_max: u32,
        client_max: u32,
    ) -> Result<Admitted, Full> {
        let client = whole_client(client);
        if self.open.fetch_add(1, Ordering::Relaxed) >= process_max {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Process);
        }
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let sessions = clients.entry(client).or_default();
        if *sessions >= client_max {
            drop(clients);
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Client);
        }
        *sessions += 1;
        drop(clients);
        Ok(Admitted { admission: Arc::clone(self), client })
    }

    /// Sessions that are open now.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.open.fetch_sub(1, Ordering::Relaxed);
        let mut clients = self.admission.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sessions) = clients.get_mut(&self.client) {
            *sessions -= 1;
            if *sessions == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

/// Who counts as one client: an IPv4 address, or the /64 of an IPv6 address.
fn whole_client(address: IpAddr) -> IpAddr {
    match canonical(address) {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_places_come_back() {
        let admission = Arc::new(Admission::default());
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = admission.admit(ip("198.18.0.1"), 3, 2).unwrap();
        let _second = admission.admit(ip("::ffff:198.18.0.1"), 3, 2).unwrap();
        assert_eq!(admission.admit(ip("198.18.0.1"), 3, 2).unwrap_err(), Full::Client);
        let _third = admission.admit(ip("2001:db8::1"), 3, 2).unwrap();
        assert_eq!(admission.admit(ip("2001:db8::2"), 3, 2).unwrap_err(), Full::Process);
        drop(first);
        let _fourth = admission.admit(ip("2001:db8::ffff"), 3, 2).unwrap();
        assert_eq!(
            admission.admit(ip("2001:db8::2"), 9, 2).unwrap_err(),
            Full::Client,
            "one /64 is one client"
        );
        assert_eq!(admission.open(), 3);
    }
}
