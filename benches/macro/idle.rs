//! Sessions that do nothing after EHLO: what a target pays for being connected to.

use std::net::SocketAddr;

use crate::link::{Link, LinkError};

/// Connections opened at once.
const OPENING_MAX: usize = 100;

/// Opens `sessions` connections to `target`, each past EHLO, and hands them over open.
///
/// # Errors
/// The first connection that fails.
pub async fn open(target: SocketAddr, sessions: usize) -> Result<Vec<Link>, LinkError> {
    let mut links = Vec::with_capacity(sessions);
    while links.len() < sessions {
        let batch = OPENING_MAX.min(sessions - links.len());
        let opening: Vec<_> = (0..batch).map(|_| tokio_uring::spawn(one(target))).collect();
        for link in opening {
            links.push(link.await.map_err(|_| LinkError::Closed)??);
        }
    }
    Ok(links)
}

async fn one(target: SocketAddr) -> Result<Link, LinkError> {
    let mut link = Link::connect(target).await?;
    link.greet(&[]).await?;
    Ok(link)
}
