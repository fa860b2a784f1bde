//! An initial file system for a kernel to boot with: a cpio archive in the "newc" format of
//! Documentation/driver-api/early-userspace/buffer-format.rst. It knows files and folders, and nothing else.

/// The archive so far.
#[derive(Default)]
pub(crate) struct Initramfs {
    octets: Vec<u8>,
    folders: Vec<String>,
    entries: u32,
}

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_755;

impl Initramfs {
    /// Adds a folder and those that it is in, each once.
    pub(crate) fn folder(&mut self, path: &str) {
        if self.folders.iter().any(|there| there == path) {
            return;
        }
        if let Some((above, _)) = path.rsplit_once('/') {
            self.folder(above);
        }
        self.folders.push(path.to_owned());
        self.entry(path, FOLDER, &[]);
    }

    /// Adds a file that may be run, and the folders that it is in.
    pub(crate) fn file(&mut self, path: &str, content: &[u8]) {
        if let Some((above, _)) = path.rsplit_once('/') {
            self.folder(above);
        }
        self.entry(path, FILE, content);
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.octets
    }

    /// Thirteen fields of eight hexadecimal digits, the name with its NUL, the content; both filled up to four octets.
    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_octets = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
        let links = if mode == FOLDER { 2 } else { 1 };
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_octets, 0];
        let digits: String = fields.iter().map(|field| format!("{field:08X}")).collect();
        self.octets.extend(b"070701");
        self.octets.extend(digits.as_bytes());
        self.octets.extend(path.as_bytes());
        self.octets.push(0);
        self.octets.resize(self.octets.len().next_multiple_of(4), 0);
        self.octets.extend(content);
        self.octets.resize(self.octets.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_folders_come_before_their_files() {
        let mut archive = Initramfs::default();
        archive.file("lib/x/a", b"12345");
        archive.file("lib/b", b"");
        let octets = archive.finish();
        let text = String::from_utf8_lossy(&octets);
        let places: Vec<usize> = ["lib\0", "lib/x\0", "lib/x/a\0", "lib/b\0", "TRAILER!!!\0"]
            .iter()
            .map(|name| text.find(name).unwrap_or(usize::MAX))
            .collect();
        assert!(places.is_sorted() && *places.last().unwrap_or(&usize::MAX) < octets.len(), "{places:?}");
        assert_eq!(text.matches("070701").count(), 5);
        assert!(text.match_indices("070701").all(|(at, _)| at.is_multiple_of(4)));
    }
}
