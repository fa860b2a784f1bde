//! The log: one line an event. No secret and no message content, ever.

pub mod config;

pub use config::Config;
pub struct Handle;
impl Handle {
    pub fn lines_dropped(&self) -> Box<dyn Fn() -> u64 + Send + Sync> {
        Box::new(|| 0)
    }
}
pub fn start(c: &Config) -> std::io::Result<Handle> {
    match &c.target {
        config::Target::File(p) => {
            let f = std::fs::File::create(p)?;
            tracing_subscriber::fmt().with_writer(std::sync::Mutex::new(f)).init()
        }
        _ => tracing_subscriber::fmt().init(),
    }
    Ok(Handle)
}
