//! Debian's Postfix as the durable baseline: an instance of its own by `-c`, with its queue in the run's folder. Tuned for
//! speed where that costs no safety: process limits, concurrency, no DNS, no anvil limits; fsync before 250 as always.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{PeerError, Place, Started, debian, free_port, placed};

/// Deliveries at once to the sink.
const UPSTREAM_CONNECTIONS: usize = 50;
/// Processes of a kind beside those that sessions need.
const SPARE_PROCESSES: usize = 50;

/// The services of Debian's master.cf that relaying needs, none in a chroot.
const SERVICES: &str = "\
pickup    unix  n - n 60    1 pickup
cleanup   unix  n - n -     0 cleanup
qmgr      unix  n - n 300   1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
tlsproxy  unix  - - n     - 0 tlsproxy
rewrite   unix  - - n -     - trivial-rewrite
bounce    unix  - - n -     0 bounce
defer     unix  - - n -     0 bounce
trace     unix  - - n -     0 bounce
verify    unix  - - n -     1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n -     - proxymap
proxywrite unix - - n -     1 proxymap
smtp      unix  - - n -     - smtp
relay     unix  - - n -     - smtp
showq     unix  n - n -     - showq
error     unix  - - n -     - error
retry     unix  - - n -     - error
discard   unix  - - n -     - discard
local     unix  - n n -     - local
virtual   unix  - n n -     - virtual
anvil     unix  - - n -     1 anvil
scache    unix  - - n -     1 scache
postlog   unix-dgram n - n - 1 postlogd
";

pub(super) fn start(place: &Place<'_>, settings: &str) -> Result<Started, PeerError> {
    let program = debian("postfix", "postfix")?;
    if !is_root()? {
        return Err(PeerError::NeedsRoot);
    }
    let (config, queue, data) = (place.dir.join("etc"), place.dir.join("queue"), place.dir.join("data"));
    for dir in [&config, &queue, &data] {
        fs::create_dir(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    }
    Command::new("chown").arg("postfix").arg(&data).status()?;
    let port = free_port()?;
    fs::write(config.join("main.cf"), format!("{}{settings}", main(place, &queue, &data)))?;
    fs::write(config.join("master.cf"), format!("127.0.0.1:{port} inet n - n - - smtpd\n{SERVICES}"))?;
    let output = place.dir.join("postfix.out");
    // `check` makes the queue's folders. `postfix start-fg` would put a shell between us and the master, which a signal
    // to our child then does not reach.
    let checked = Command::new(&program).arg("-c").arg(&config).arg("check").stdin(Stdio::null()).output()?;
    if !checked.status.success() {
        return Err(PeerError::NotReady(String::from_utf8_lossy(&checked.stderr).into_owned()));
    }
    let process = placed(&master()?, place.cpus)
        .arg("-s")
        .arg("-c")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&output)?)
        .spawn()?;
    Ok(Started { address: ([127, 0, 0, 1], port).into(), process: Some(process), output: Some(output) })
}

/// The program that all services are children of.
fn master() -> Result<PathBuf, PeerError> {
    let told =
        Command::new("postconf").args(["-d", "-h", "daemon_directory"]).stdin(Stdio::null()).output()?;
    Ok(Path::new(String::from_utf8_lossy(&told.stdout).trim()).join("master"))
}

fn main(place: &Place<'_>, queue: &Path, data: &Path) -> String {
    format!(
        "compatibility_level = 3.6\n\
         queue_directory = {queue}\n\
         data_directory = {data}\n\
         myhostname = postfix.bench.example\n\
         mydestination =\n\
         mynetworks = 127.0.0.0/8\n\
         inet_interfaces = 127.0.0.1\n\
         inet_protocols = ipv4\n\
         alias_maps =\n\
         alias_database =\n\
         local_recipient_maps =\n\
         relayhost = [{host}]:{port}\n\
         smtp_tls_security_level = none\n\
         smtpd_tls_security_level = none\n\
         smtp_dns_support_level = disabled\n\
         smtpd_peername_lookup = no\n\
         message_size_limit = 0\n\
         mailbox_size_limit = 0\n\
         in_flow_delay = 0\n\
         default_process_limit = {processes}\n\
         smtpd_client_connection_count_limit = 0\n\
         smtpd_client_connection_rate_limit = 0\n\
         smtpd_client_message_rate_limit = 0\n\
         initial_destination_concurrency = {upstream}\n\
         default_destination_concurrency_limit = {upstream}\n\
         smtp_connection_cache_destinations = {host}\n\
         qmgr_message_active_limit = 200000\n",
        queue = queue.display(),
        data = data.display(),
        host = place.upstream.ip(),
        port = place.upstream.port(),
        processes = place.sessions + SPARE_PROCESSES,
        upstream = UPSTREAM_CONNECTIONS,
    )
}

fn is_root() -> std::io::Result<bool> {
    let output = Command::new("id").arg("-u").stdin(Stdio::null()).output()?;
    Ok(output.stdout.trim_ascii() == b"0")
}
