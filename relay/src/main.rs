//! Arguments and exit code; everything else is in the library.
fn main() {
    let sources = ringpost::config::Sources::of_process(vec![], None);
    match ringpost::config::load(&sources, &ringpost::config::Host::current()) {
        Ok(l) => {
            if let Err(f) = ringpost::daemon::run(l, sources, ringpost::io::ladder::Rung::DeferTaskrun) {
                eprintln!("{f}");
                std::process::exit(f.exit_code().into())
            }
        }
        Err(r) => {
            for m in r.mistakes {
                eprintln!("{m}");
            }
            std::process::exit(78)
        }
    }
}
