//! The scan of a header section against a search for its end, which is the least there is to do, and against
//! reading it line by line into strings.

mod timing;

use memchr::memmem;
use ringpost::smtp::body::Form;
use ringpost::trace::HeaderScan;
use timing::{Case, Work, compare};

fn main() {
    let fields: String = [
        "Received: from app.example (app.example [192.0.2.1])\r\n\tby relay.example (Postfix) with ESMTPS id 4bX\r\n\t\
         for <you@example.net>; Mon, 21 Sep 2026 14:13:20 +0000\r\n",
        "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com; s=sel; h=From:To:Subject:Date;\r\n \
         bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=; b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB\r\n",
        "Date: Mon, 21 Sep 2026 14:13:19 +0000\r\nFrom: Some Body <somebody@example.com>\r\n",
        "To: You <you@example.net>\r\nSubject: An ordinary subject of an ordinary message\r\n",
        "Message-ID: <20260921141319.1@example.com>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n",
    ]
    .concat();
    for (title, times) in [("header section of an application", 1), ("a hundred hops", 100)] {
        let message = [fields.repeat(times), "\r\nThe body.\r\n".into()].concat();
        let message = message.as_bytes();
        let finder = memmem::Finder::new(b"\r\n\r\n");
        let cases = vec![
            Case::new("memmem for the empty line", || finder.find(message).map_or(0, |at| at as u64)),
            Case::new("lines as strings", || naive(message)),
            Case::new("header scan", || {
                let mut scan = HeaderScan::new(Form::Stuffed);
                scan.scan(message);
                u64::from(scan.hops()) + scan.octets() as u64
            }),
        ];
        compare(title, Work { count: message.len(), unit: "GB/s", scale: 1e9 }, cases);
    }
}

fn naive(message: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(message);
    let section = text.split("\r\n").take_while(|line| !line.is_empty());
    section.filter(|line| line.to_lowercase().starts_with("received:")).count() as u64
}
