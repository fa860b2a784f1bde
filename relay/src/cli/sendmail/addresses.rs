//! Addresses out of header fields and arguments (RFC 5322 §3.4): comments, display names, groups and routes go, what is
//! left is an envelope's address. Lenient where programs are; whoever is told to send decides.

/// The addresses of one field's value, in order; `None` where they cannot be told apart.
pub(super) fn of_field(value: &str) -> Option<Vec<String>> {
    let mut reader = Reader::default();
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            '(' => skip_comment(&mut characters)?,
            '"' => reader.quoted(&mut characters)?,
            '<' if reader.inside.is_none() => reader.inside = Some(String::new()),
            '>' if reader.inside.is_some() => reader.closed = true,
            ',' | ';' if reader.is_between() => reader.finish(),
            // A group's name ends here.
            ':' if reader.is_between() => reader.plain.clear(),
            character => reader.push(character),
        }
    }
    if reader.inside.is_some() && !reader.closed {
        return None;
    }
    reader.finish();
    Some(reader.found)
}

#[derive(Default)]
struct Reader {
    found: Vec<String>,
    /// Outside of angle brackets.
    plain: String,
    /// Inside of them.
    inside: Option<String>,
    closed: bool,
    in_literal: bool,
}

impl Reader {
    /// Whether a comma would end an address here.
    fn is_between(&self) -> bool {
        (self.inside.is_none() || self.closed) && !self.in_literal
    }

    fn push(&mut self, character: char) {
        match character {
            '[' => self.in_literal = true,
            ']' => self.in_literal = false,
            _ => {}
        }
        let into = match &mut self.inside {
            Some(inside) if !self.closed => inside,
            _ => &mut self.plain,
        };
        // Folding and spaces around the dots and the at sign are no part of an address.
        if !character.is_whitespace() {
            into.push(character);
        }
    }

    fn quoted(&mut self, characters: &mut std::str::Chars<'_>) -> Option<()> {
        let into = match &mut self.inside {
            Some(inside) if !self.closed => inside,
            _ => &mut self.plain,
        };
        into.push('"');
        loop {
            let character = characters.next()?;
            into.push(character);
            match character {
                '\\' => into.push(characters.next()?),
                '"' => return Some(()),
                _ => {}
            }
        }
    }

    fn finish(&mut self) {
        let plain = std::mem::take(&mut self.plain);
        let address = self.inside.take().unwrap_or(plain);
        self.closed = false;
        let address = without_route(&address);
        if !address.is_empty() {
            self.found.push(address.to_owned());
        }
    }
}

/// RFC 5322 §3.2.2: comments nest.
fn skip_comment(characters: &mut std::str::Chars<'_>) -> Option<()> {
    let mut depth = 1;
    while depth > 0 {
        match characters.next()? {
            '(' => depth += 1,
            ')' => depth -= 1,
            '\\' => drop(characters.next()),
            _ => {}
        }
    }
    Some(())
}

/// RFC 5322 §4.4: `@a,@b:user@host` is obsolete and means the last.
fn without_route(address: &str) -> &str {
    if address.starts_with('@') { address.split_once(':').map_or("", |(_, rest)| rest) } else { address }
}

/// An argument or a found address as an envelope has it: without brackets, at this host where it names none. The null
/// sender stays what it is.
pub(super) fn qualified(address: &str, host: &str) -> String {
    let address = address.trim();
    let bare = address.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(address);
    // An argument may be a whole mailbox too: `Name <user@host>`.
    let bare = match (bare.contains('<'), of_field(bare).as_deref()) {
        (true, Some([one])) => one.clone(),
        _ => bare.to_owned(),
    };
    let behind_quotes = bare.rsplit_once('"').map_or(&*bare, |(_, rest)| rest);
    if bare.is_empty() || behind_quotes.contains('@') { bare } else { format!("{bare}@{host}") }
}
