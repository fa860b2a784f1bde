//! `cargo xtask gate-kernels`: the gate's golden packets on Debian's kernels, each booted under qemu in software
//! emulation. What loads here is what an older verifier accepts. It must not install or remove anything but, where
//! asked by its own name, qemu and busybox; kernels are unpacked, never installed.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::initramfs::Initramfs;
use crate::shell::{Done, cargo, found, output, shown, step, target};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Debian suites whose kernel to boot
    #[arg(default_values = ["bullseye", "bookworm", "bookworm-backports", "sid"])]
    suites: Vec<String>,
}

/// Programs that must be there, and Debian's packages of them.
const NEEDED: &[(&str, &str)] =
    &[("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static"), ("dpkg-deb", "dpkg")];
/// The tests that need no second interface: on old kernels it is the verifier that is in question.
const TESTS: &str = "golden:: reset:: reload:: property::kernel verifier::";
const MEMORY: &str = "1024";
/// A boot takes 12 to 22 seconds here, the tests as long again; a hang is not waited out.
const TIMEOUT_SECS: &str = "600";

pub(crate) fn run(arguments: &Arguments) -> Done {
    let missing: Vec<&str> =
        NEEDED.iter().filter(|(program, _)| found(program).is_none()).map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        // Said and not done: qemu's packages may push out what others installed.
        return Err(format!("missing: apt-get install --no-remove {}", missing.join(" ")).into());
    }
    let object = crate::ebpf::object()?;
    let tests = test_program()?;
    let apt = Apt::prepare(&arguments.suites)?;
    let mut failed = Vec::new();
    for suite in &arguments.suites {
        match apt.kernel(suite).and_then(|kernel| boot(&kernel, &tests, &object)) {
            Ok(summary) => println!("{suite}: {summary}"),
            Err(error) => {
                println!("{suite}: {error}");
                failed.push(suite.as_str());
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("failed on {}", failed.join(", ")).into()) }
}

/// The test executable of `tests/gate`.
fn test_program() -> Result<PathBuf, Box<dyn Error>> {
    let messages = output(&mut cargo(&[
        "test",
        "--package",
        "ringpost-tests",
        "--test",
        "gate",
        "--no-run",
        "--message-format=json",
    ]))?;
    let built = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let executable = built.filter(|message| message["target"]["name"] == "gate");
    let path = executable.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next();
    path.ok_or_else(|| "cargo names no executable of tests/gate".into())
}

/// apt with sources, lists and downloads of its own: the machine's stay as they are.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn prepare(suites: &[String]) -> Result<Self, Box<dyn Error>> {
        let apt = Self { folder: target().join("gate-kernels") };
        for folder in ["lists/partial", "cache/archives/partial", "debs"] {
            fs::create_dir_all(apt.folder.join(folder))?;
        }
        let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let sources: String = suites
            .iter()
            .map(|suite| format!("deb [signed-by={keyring}] http://deb.debian.org/debian {suite} main\n"))
            .collect();
        fs::write(apt.folder.join("sources.list"), sources)?;
        step(apt.command("apt-get").args(["update", "-qq"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (option, path) in [
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::State::Lists", "lists"),
            ("Dir::Cache", "cache"),
        ] {
            command.arg("-o").arg(format!("{option}={}", self.folder.join(path).display()));
        }
        command.args(["-o", "Dir::Etc::SourceParts=/dev/null", "-o", "APT::Sandbox::User=root"]);
        command.stdin(Stdio::null());
        command
    }

    /// The newest cloud kernel of a suite, unpacked.
    fn kernel(&self, suite: &str) -> Result<PathBuf, Box<dyn Error>> {
        const META: &str = "linux-image-cloud-amd64";
        let madison = output(self.command("apt-cache").args(["madison", META]))?;
        let is_of_suite = |line: &&str| line.contains(&format!(" {suite}/main "));
        let line = madison.lines().find(is_of_suite).ok_or_else(|| format!("{suite} has no {META}"))?;
        let version = line.split('|').nth(1).unwrap_or_default().trim();
        let mut packages = self.kernel_packages(&format!("{META}={version}"))?;
        // Newer ones keep the image itself in a package behind the image's.
        for image in packages.clone() {
            packages.extend(self.kernel_packages(&image)?);
        }
        let unpacked = self.folder.join("debs").join(suite);
        fs::create_dir_all(&unpacked)?;
        for package in packages {
            step(self.command("apt-get").args(["download", "-qq", &package]).current_dir(&unpacked))?;
        }
        for entry in fs::read_dir(&unpacked)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                step(Command::new("dpkg-deb").arg("-x").arg(path).arg(&unpacked))?;
            }
        }
        // Where all of a kernel lies in one folder, that is the one of its modules.
        newest(&unpacked.join("boot"), "vmlinuz-").or_else(|_| {
            let modules = newest(&unpacked.join("usr/lib/modules"), "")?;
            newest(&modules, "vmlinuz")
        })
    }

    /// What a package depends on that may hold a kernel's image.
    fn kernel_packages(&self, package: &str) -> Result<Vec<String>, Box<dyn Error>> {
        let shown = output(self.command("apt-cache").args(["show", "--no-all-versions", package]))?;
        let depends =
            shown.lines().filter_map(|line| line.strip_prefix("Depends: ")).flat_map(|all| all.split(", "));
        let names = depends.filter_map(|one| one.split(' ').next());
        let is_image = |name: &&str| name.starts_with("linux-image-") || name.starts_with("linux-binary-");
        Ok(names.filter(is_image).map(str::to_owned).collect())
    }
}

fn newest(folder: &Path, prefix: &str) -> Result<PathBuf, Box<dyn Error>> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .map_err(|error| format!("{}: {error}", folder.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .collect();
    found.sort();
    found.pop().ok_or_else(|| format!("no {prefix}* in {}", folder.display()).into())
}

/// Boots a kernel with the tests as its only program, and gives their closing lines.
fn boot(kernel: &Path, tests: &Path, object: &Path) -> Result<String, Box<dyn Error>> {
    let script = format!(
        "#!/busybox sh\n\
         /busybox mount -t proc proc /proc\n\
         /busybox mount -t sysfs sys /sys\n\
         /busybox mount -t devtmpfs dev /dev\n\
         /busybox ip link set lo up\n\
         /busybox echo kernel $(/busybox uname -r)\n\
         RINGPOST_GATE_OBJECT=/gate.o /gate {TESTS} --test-threads=1 --nocapture 2>&1\n\
         /busybox echo gate-exit $?\n\
         /busybox poweroff -f\n"
    );
    let busybox = found("busybox").ok_or("no busybox")?;
    let mut initramfs = Initramfs::default();
    for folder in ["proc", "sys", "dev", "tmp"] {
        initramfs.folder(folder);
    }
    initramfs.file("busybox", &fs::read(busybox)?);
    initramfs.file("init", script.as_bytes());
    initramfs.file("gate.o", &fs::read(object)?);
    initramfs.file("gate", &fs::read(tests)?);
    for library in libraries(tests)? {
        initramfs.file(library.trim_start_matches('/'), &fs::read(&library)?);
    }
    let image = target().join("gate-kernels").join("initramfs.cpio");
    fs::write(&image, initramfs.finish())?;
    let mut qemu = Command::new("timeout");
    qemu.args([
        TIMEOUT_SECS,
        "qemu-system-x86_64",
        "-accel",
        "tcg",
        "-cpu",
        "max",
        "-m",
        MEMORY,
        "-nographic",
    ]);
    qemu.args(["-no-reboot", "-append", "console=ttyS0 quiet panic=-1", "-kernel"]).arg(kernel);
    qemu.arg("-initrd").arg(image).stdin(Stdio::null());
    println!("$ {}", shown(&qemu));
    let said = String::from_utf8_lossy(&qemu.output()?.stdout).into_owned();
    let line = |start: &str| said.lines().find(|line| line.contains(start)).map(str::trim);
    match (line("gate-exit 0"), line("test result:")) {
        (Some(_), Some(result)) => {
            let release = line("kernel ").unwrap_or_default();
            let verified = line("verified instructions").unwrap_or_default();
            Ok(format!("{release}: {result} {verified}"))
        }
        _ => Err(format!("{said}\nthe tests did not pass").into()),
    }
}

/// The libraries that a program is linked with, by where the loader finds them.
fn libraries(program: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let listed = output(Command::new("ldd").arg(program))?;
    Ok(listed.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect())
}
