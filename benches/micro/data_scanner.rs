//! The scanner of message bodies against one pass of `memmem` for CRLF dot, which is the least that a scanner
//! that only looks for the end could do, and against a reading octet by octet.

mod timing;

use memchr::memmem;
use ringpost::smtp::body::{BareNewline, BodyScanner, Form, Framing, Piece, ScanState};
use timing::{Case, Work, compare};

fn main() {
    let text = b"An ordinary line of text, as it stands in most of the messages that we see.\r\n";
    let base64 = [&[b'Q'; 76][..], b"\r\n"].concat();
    let bare = b"An ordinary line of text, as it stands in most of the messages that we see\n";
    let dotted = [&text.repeat(9)[..], b"..\r\n"].concat();
    let inputs: [(&str, Vec<u8>); 7] = [
        ("text 64 KiB", text.repeat(65_536 / text.len())),
        ("base64 64 KiB", base64.repeat(65_536 / base64.len())),
        ("text 1 KiB", text.repeat(1024 / text.len())),
        ("text 1 MiB", text.repeat(1_048_576 / text.len())),
        ("a dot line in ten 64 KiB", dotted.repeat(65_536 / dotted.len())),
        ("bare LF 64 KiB", bare.repeat(65_536 / bare.len())),
        ("nothing but LF 64 KiB", vec![b'\n'; 65_536]),
    ];
    for (title, body) in &inputs {
        let body = [body, &b".\r\n"[..]].concat();
        let mut pieces = Vec::with_capacity(2048);
        let finder = memmem::Finder::new(b"\r\n.");
        let mut cases = vec![
            Case::new("memmem CRLF dot", || finder.find_iter(&body).count() as u64),
            Case::new("memmem and memchr2", || naive_vector(&body)),
            Case::new("octet by octet", || naive(&body)),
        ];
        let forms = [("scan, stuffed", Form::Stuffed), ("scan, plain", Form::Plain)];
        for (name, form) in forms {
            let (body, mut pieces) = (&body, std::mem::take(&mut pieces));
            cases.push(Case::new(name, move || scan(body, Framing::Data, form, &mut pieces)));
        }
        cases.push(Case::new("scan, chunks to stuffed", {
            let body = &body[..body.len() - 3];
            move || scan(body, Framing::Chunks, Form::Stuffed, &mut pieces)
        }));
        compare(title, Work { count: body.len(), unit: "GB/s", scale: 1e9 }, cases);
    }
}

fn scan(body: &[u8], framing: Framing, form: Form, pieces: &mut Vec<Piece>) -> u64 {
    let mut scanner = BodyScanner::new(framing, form, BareNewline::Normalize);
    let mut rest = body;
    loop {
        pieces.clear();
        let scan = scanner.scan(rest, pieces);
        rest = &rest[scan.consumed..];
        if scan.state == ScanState::End || rest.is_empty() {
            return scanner.size() + pieces.len() as u64;
        }
    }
}

/// What the scanner does on canonical mail with the usual tools: the road not taken.
fn naive_vector(body: &[u8]) -> u64 {
    let mut newlines = memchr::memchr3_iter(b'\r', b'\n', 0, body);
    let mut odd = 0;
    while let Some(at) = newlines.next() {
        match body[at] {
            b'\r' if body.get(at + 1) == Some(&b'\n') => {
                newlines.next();
                odd += u64::from(body.get(at + 2) == Some(&b'.'));
            }
            _ => odd += 1,
        }
    }
    odd + u64::from(!body.is_ascii())
}

/// An automaton that takes one octet at a time.
fn naive(body: &[u8]) -> u64 {
    let (mut matched, mut odd, mut union) = (2, 0u64, 0);
    for &octet in body {
        let carriage = matched == 1 || matched == 4;
        matched = match (octet, matched) {
            (b'\n', 4) => return odd + u64::from(union),
            (b'\n', 1) => 2,
            (b'.', 2) => 3,
            (b'\r', 3) => 4,
            (b'\r', _) => 1,
            _ => 0,
        };
        odd += u64::from((octet == b'\n') != carriage || octet == 0);
        union |= octet;
    }
    odd
}
