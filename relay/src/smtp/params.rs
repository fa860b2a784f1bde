//! The parameters of MAIL and RCPT: SIZE, BODY, SMTPUTF8, RET, ENVID, AUTH, REQUIRETLS; NOTIFY, ORCPT.
//!
//! Only what EHLO offered is understood ([`Offer`]); everything else is an unknown parameter. What is xtext stays
//! encoded, as it was written, so that it travels on unchanged (RFC 3461 §5.1) and its decoded form, which may hold
//! anything a peer likes, never gets near a wire or a log.

use super::path::{self, ForwardPath, NotAPath, ReversePath};
use crate::limits::DSN_PARAMETER_OCTETS_MAX;

/// MAIL FROM, read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Whom it is from.
    pub reverse_path: ReversePath,
    /// Its parameters.
    pub params: MailParams,
}

/// RCPT TO, read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rcpt {
    /// Whom it is for.
    pub forward_path: ForwardPath,
    /// Its parameters.
    pub params: RcptParams,
}

/// The parameters of MAIL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailParams {
    /// `SIZE=`: octets the client expects to send (RFC 1870 §4); a larger number than fits reads as `u64::MAX`.
    pub size: Option<u64>,
    /// `BODY=` (RFC 6152 §3).
    pub body: Option<BodyType>,
    /// `SMTPUTF8` (RFC 6531 §3.4).
    pub smtputf8: bool,
    /// `RET=` (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// `ENVID=` in xtext, as it was written (RFC 3461 §4.4).
    pub envid: Option<Box<str>>,
    /// `AUTH=` in xtext, as it was written (RFC 4954 §5): a claim, to be passed on as `<>` unless it is trusted.
    pub auth: Option<Box<str>>,
    /// `REQUIRETLS` (RFC 8689 §2).
    pub requiretls: bool,
}

/// `BODY=`; BINARYMIME is not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyType {
    /// `7BIT`.
    SevenBit,
    /// `8BITMIME`.
    EightBitMime,
}

/// `RET=`: how much of the message a notice of failure returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ret {
    /// `FULL`.
    Full,
    /// `HDRS`.
    Headers,
}

/// The parameters of RCPT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RcptParams {
    /// `NOTIFY=` (RFC 3461 §4.1).
    pub notify: Option<Notify>,
    /// `ORCPT=`: address type and xtext, as they were written (RFC 3461 §4.2).
    pub orcpt: Option<Box<str>>,
}

/// `NOTIFY=`: on which events a notice is wanted. [`Notify::NEVER`] holds none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notify(u8);

impl Notify {
    /// `NEVER`.
    pub const NEVER: Self = Self(0);
    /// `SUCCESS`.
    pub const SUCCESS: Self = Self(1);
    /// `FAILURE`.
    pub const FAILURE: Self = Self(2);
    /// `DELAY`.
    pub const DELAY: Self = Self(4);

    /// Whether a notice of `event` (one of the constants) is wanted.
    #[must_use]
    pub fn wants(self, event: Self) -> bool {
        self.0 & event.0 != 0
    }

    /// The bits, for the spool's records.
    #[must_use]
    pub fn to_bits(self) -> u8 {
        self.0
    }

    /// From [`Self::to_bits`]; bits that mean nothing are dropped.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        Self(bits & 7)
    }

    /// The value as it is written after `NOTIFY=`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self.0 {
            1 => "SUCCESS",
            2 => "FAILURE",
            3 => "SUCCESS,FAILURE",
            4 => "DELAY",
            5 => "SUCCESS,DELAY",
            6 => "FAILURE,DELAY",
            7 => "SUCCESS,FAILURE,DELAY",
            _ => "NEVER",
        }
    }

    fn parse(value: &str) -> Result<Self, Refusal> {
        if value.eq_ignore_ascii_case("NEVER") {
            return Ok(Self::NEVER);
        }
        // RFC 3461 §4.1: NEVER stands alone, the others in any company.
        value.split(',').try_fold(Self::NEVER, |all, word| {
            let event = keyword(
                word,
                &[("SUCCESS", Self::SUCCESS), ("FAILURE", Self::FAILURE), ("DELAY", Self::DELAY)],
            )?;
            Ok(Self(all.0 | event.0))
        })
    }
}

/// Which parameters EHLO offered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offer {
    /// SIZE and BODY, which are always offered to a client that said EHLO.
    pub esmtp: bool,
    /// SMTPUTF8.
    pub smtputf8: bool,
    /// RET, ENVID, NOTIFY, ORCPT.
    pub dsn: bool,
    /// AUTH.
    pub auth: bool,
    /// REQUIRETLS.
    pub requiretls: bool,
}

/// Why MAIL or RCPT cannot be taken as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not `FROM:` or `TO:`.
    Syntax,
    /// Not an address.
    Address,
    /// An address with UTF-8, without SMTPUTF8.
    Utf8Address,
    /// A parameter given twice, or with a bad value.
    Parameter,
    /// A parameter that was not offered.
    UnknownParameter,
}

impl From<NotAPath> for Refusal {
    fn from(NotAPath: NotAPath) -> Self {
        Self::Address
    }
}

/// Reads what stands behind the verb MAIL.
///
/// # Errors
/// [`Refusal`]; nothing of the command counts then.
pub fn mail(arguments: &str, offer: Offer) -> Result<Mail, Refusal> {
    let text = after_label(arguments, "FROM:")?;
    let (reverse_path, rest) = path::reverse_path(text)?;
    let mut params = MailParams::default();
    for word in words(rest)? {
        params.read(word, offer)?;
    }
    let needs_utf8 = reverse_path.mailbox().is_some_and(path::Mailbox::needs_utf8);
    // RFC 6531 §3.4: a UTF-8 address in MAIL needs the parameter.
    if needs_utf8 && !params.smtputf8 {
        return Err(Refusal::Utf8Address);
    }
    Ok(Mail { reverse_path, params })
}

/// Reads what stands behind the verb RCPT. `smtputf8`: whether MAIL had that parameter.
///
/// # Errors
/// [`Refusal`]; nothing of the command counts then.
pub fn rcpt(arguments: &str, offer: Offer, smtputf8: bool) -> Result<Rcpt, Refusal> {
    let text = after_label(arguments, "TO:")?;
    let (forward_path, rest) = path::forward_path(text)?;
    if forward_path.mailbox().needs_utf8() && !smtputf8 {
        return Err(Refusal::Utf8Address);
    }
    let mut params = RcptParams::default();
    for word in words(rest)? {
        params.read(word, offer, smtputf8)?;
    }
    Ok(Rcpt { forward_path, params })
}

impl MailParams {
    fn read(&mut self, word: &str, offer: Offer) -> Result<(), Refusal> {
        let (name, value) = parameter(word);
        match Name::of(name).filter(|name| name.is_offered(offer)) {
            Some(Name::Size) => once(&mut self.size, size(value)?),
            Some(Name::Body) => once(&mut self.body, body(value)?),
            Some(Name::Ret) => once(&mut self.ret, ret(value)?),
            Some(Name::Envid) => once(&mut self.envid, envid(value)?),
            Some(Name::Auth) => once(&mut self.auth, auth(value)?),
            Some(Name::Smtputf8) => flag(&mut self.smtputf8, value),
            Some(Name::Requiretls) => flag(&mut self.requiretls, value),
            Some(Name::Notify | Name::Orcpt) | None => Err(Refusal::UnknownParameter),
        }
    }
}

impl RcptParams {
    fn read(&mut self, word: &str, offer: Offer, smtputf8: bool) -> Result<(), Refusal> {
        let (name, value) = parameter(word);
        match Name::of(name).filter(|name| name.is_offered(offer)) {
            Some(Name::Notify) => once(&mut self.notify, Notify::parse(value.unwrap_or_default())?),
            Some(Name::Orcpt) => once(&mut self.orcpt, orcpt(value, smtputf8)?),
            _ => Err(Refusal::UnknownParameter),
        }
    }
}

/// The names of all parameters.
#[derive(Clone, Copy)]
enum Name {
    Size,
    Body,
    Smtputf8,
    Ret,
    Envid,
    Auth,
    Requiretls,
    Notify,
    Orcpt,
}

impl Name {
    const ALL: [(&str, Self); 9] = [
        ("SIZE", Self::Size),
        ("BODY", Self::Body),
        ("SMTPUTF8", Self::Smtputf8),
        ("NOTIFY", Self::Notify),
        ("ORCPT", Self::Orcpt),
        ("RET", Self::Ret),
        ("ENVID", Self::Envid),
        ("AUTH", Self::Auth),
        ("REQUIRETLS", Self::Requiretls),
    ];

    fn of(word: &str) -> Option<Self> {
        keyword(word, &Self::ALL).ok()
    }

    fn is_offered(self, offer: Offer) -> bool {
        match self {
            Self::Size | Self::Body => offer.esmtp,
            Self::Smtputf8 => offer.smtputf8,
            Self::Ret | Self::Envid | Self::Notify | Self::Orcpt => offer.dsn,
            Self::Auth => offer.auth,
            Self::Requiretls => offer.requiretls,
        }
    }
}

/// `FROM:` or `TO:` in any case, then spaces that should not be there but often are.
fn after_label<'a>(arguments: &'a str, label: &str) -> Result<&'a str, Refusal> {
    match arguments.split_at_checked(label.len()) {
        Some((head, rest)) if head.eq_ignore_ascii_case(label) => Ok(rest.trim_start_matches(' ')),
        _ => Err(Refusal::Syntax),
    }
}

/// The words behind the path, which must be apart from it.
fn words(rest: &str) -> Result<impl Iterator<Item = &str>, Refusal> {
    if !rest.is_empty() && !rest.starts_with(' ') {
        return Err(Refusal::Address);
    }
    Ok(rest.split(' ').filter(|word| !word.is_empty()))
}

fn parameter(word: &str) -> (&str, Option<&str>) {
    word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)))
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Refusal> {
    if slot.replace(value).is_some() { Err(Refusal::Parameter) } else { Ok(()) }
}

fn flag(slot: &mut bool, value: Option<&str>) -> Result<(), Refusal> {
    if value.is_some() || std::mem::replace(slot, true) { Err(Refusal::Parameter) } else { Ok(()) }
}

fn keyword<T: Copy>(word: &str, table: &[(&str, T)]) -> Result<T, Refusal> {
    let row = table.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
    row.map(|(_, value)| *value).ok_or(Refusal::Parameter)
}

/// RFC 1870 §5: one to twenty digits.
fn size(value: Option<&str>) -> Result<u64, Refusal> {
    let digits = value.unwrap_or_default();
    if !(1..=20).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Refusal::Parameter);
    }
    Ok(digits.parse().unwrap_or(u64::MAX))
}

fn body(value: Option<&str>) -> Result<BodyType, Refusal> {
    keyword(value.unwrap_or_default(), &[("7BIT", BodyType::SevenBit), ("8BITMIME", BodyType::EightBitMime)])
}

fn ret(value: Option<&str>) -> Result<Ret, Refusal> {
    keyword(value.unwrap_or_default(), &[("FULL", Ret::Full), ("HDRS", Ret::Headers)])
}

fn envid(value: Option<&str>) -> Result<Box<str>, Refusal> {
    xtext(value.unwrap_or_default())
}

/// RFC 4954 §5: a mailbox in xtext, or `<>`.
fn auth(value: Option<&str>) -> Result<Box<str>, Refusal> {
    match value {
        Some("<>") => Ok("<>".into()),
        other => xtext(other.unwrap_or_default()),
    }
}

/// RFC 3461 §4.2: an address type, `;`, the address in xtext; RFC 6533 §3 lets `utf-8` addresses be UTF-8.
fn orcpt(value: Option<&str>, smtputf8: bool) -> Result<Box<str>, Refusal> {
    let value = value.unwrap_or_default();
    let (kind, address) = value.split_once(';').ok_or(Refusal::Parameter)?;
    let is_atom = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let is_utf8 = smtputf8 && kind.eq_ignore_ascii_case("utf-8");
    let is_address = if is_utf8 { is_unitext(address) } else { is_xtext(address) };
    if is_atom && is_address && !address.is_empty() && value.len() <= DSN_PARAMETER_OCTETS_MAX {
        Ok(value.into())
    } else {
        Err(Refusal::Parameter)
    }
}

fn xtext(value: &str) -> Result<Box<str>, Refusal> {
    if value.is_empty() || value.len() > DSN_PARAMETER_OCTETS_MAX || !is_xtext(value) {
        return Err(Refusal::Parameter);
    }
    Ok(value.into())
}

/// RFC 3461 §4: printable ASCII but `+` and `=`, or `+` and two upper-case hexadecimal digits. What decodes to a
/// control character is refused: it could only be meant for a reader that decodes it into a line.
fn is_xtext(value: &str) -> bool {
    let mut octets = value.bytes();
    while let Some(octet) = octets.next() {
        let is_fine = match octet {
            b'+' => match (octets.next().and_then(hex), octets.next().and_then(hex)) {
                (Some(high), Some(low)) => !(high << 4 | low).is_ascii_control(),
                _ => false,
            },
            b'!'..=b'~' => octet != b'=',
            _ => false,
        };
        if !is_fine {
            return false;
        }
    }
    true
}

/// RFC 6533 §3 utf-8-addr-unitext, and its ASCII form with `\x{…}`, which are passed on as they are.
fn is_unitext(address: &str) -> bool {
    address.chars().all(|c| !c.is_control() && !matches!(c, ' ' | '=' | '+'))
}

fn hex(octet: u8) -> Option<u8> {
    match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Offer = Offer { esmtp: true, smtputf8: true, dsn: true, auth: true, requiretls: true };

    #[test]
    fn reads_every_parameter_of_mail() {
        let read = mail(
            "FROM:<a@b> SIZE=1000 body=8bitmime SMTPUTF8 RET=HDRS ENVID=QQ314159+2Bx AUTH=e+3Dmc2@example.com REQUIRETLS",
            ALL,
        )
        .unwrap();
        assert_eq!(read.params.size, Some(1000));
        assert_eq!(read.params.body, Some(BodyType::EightBitMime));
        assert_eq!(read.params.ret, Some(Ret::Headers));
        assert_eq!(read.params.envid.as_deref(), Some("QQ314159+2Bx"));
        assert_eq!(read.params.auth.as_deref(), Some("e+3Dmc2@example.com"));
        assert!(read.params.smtputf8 && read.params.requiretls);
    }

    #[test]
    fn reads_every_parameter_of_rcpt() {
        let read =
            rcpt("to: <a@b>  NOTIFY=success,Delay ORCPT=rfc822;Bob@ivory+2Eexample", ALL, false).unwrap();
        assert_eq!(read.params.notify.map(Notify::as_str), Some("SUCCESS,DELAY"));
        assert_eq!(read.params.orcpt.as_deref(), Some("rfc822;Bob@ivory+2Eexample"));
        assert!(rcpt("TO:<a@b> ORCPT=utf-8;\u{e4}@b", ALL, true).is_ok());
        assert!(rcpt("TO:<a@b> ORCPT=utf-8;\u{e4}@b", ALL, false).is_err());
    }

    #[test]
    fn refuses_bad_and_repeated_parameters_of_mail() {
        for words in [
            "SIZE",
            "SIZE=",
            "SIZE=-1",
            "SIZE=+1",
            "SIZE=1x",
            "SIZE=111111111111111111111",
            "SIZE=1 SIZE=1",
            "BODY=FOO",
            "BODY",
            "BODY=BINARYMIME",
            "BODY=7BIT BODY=7BIT",
            "RET=ALL",
            "RET=FULL RET=HDRS",
            "ENVID=",
            "ENVID=a+0D+0Ab",
            "ENVID=a+0",
            "ENVID=a+0g",
            "ENVID=a=b",
            "SMTPUTF8=1",
            "SMTPUTF8 SMTPUTF8",
            "AUTH=",
            "AUTH=a+0A",
        ] {
            assert_eq!(mail(&format!("FROM:<a@b> {words}"), ALL), Err(Refusal::Parameter), "{words}");
        }
        let long = format!("FROM:<a@b> ENVID={}", "x".repeat(DSN_PARAMETER_OCTETS_MAX + 1));
        assert_eq!(mail(&long, ALL), Err(Refusal::Parameter));
    }

    #[test]
    fn refuses_bad_and_repeated_parameters_of_rcpt() {
        for words in [
            "NOTIFY",
            "NOTIFY=",
            "NOTIFY=NEVER,FAILURE",
            "NOTIFY=FAILURE,",
            "NOTIFY=DELAY NOTIFY=DELAY",
            "ORCPT=a@b",
            "ORCPT=;a@b",
            "ORCPT=rfc822;",
            "ORCPT=rfc822;a+0Db",
            "ORCPT=rfc822;\u{e4}",
        ] {
            assert_eq!(rcpt(&format!("TO:<a@b> {words}"), ALL, false), Err(Refusal::Parameter), "{words}");
        }
    }

    #[test]
    fn what_was_not_offered_is_unknown() {
        let none = Offer::default();
        for words in [
            "SIZE=1",
            "BODY=7BIT",
            "SMTPUTF8",
            "RET=FULL",
            "ENVID=x",
            "AUTH=<>",
            "REQUIRETLS",
            "FOO",
            "FOO=1",
        ] {
            assert_eq!(mail(&format!("FROM:<a@b> {words}"), none), Err(Refusal::UnknownParameter), "{words}");
        }
        assert_eq!(rcpt("TO:<a@b> SIZE=1", ALL, false), Err(Refusal::UnknownParameter));
        assert_eq!(mail("FROM:<a@b> NOTIFY=NEVER", ALL), Err(Refusal::UnknownParameter));
    }

    #[test]
    fn utf8_addresses_need_the_parameter() {
        assert_eq!(mail("FROM:<\u{e4}@b>", ALL), Err(Refusal::Utf8Address));
        assert!(mail("FROM:<\u{e4}@b> SMTPUTF8", ALL).is_ok());
        assert_eq!(rcpt("TO:<a@\u{e4}>", ALL, false), Err(Refusal::Utf8Address));
        assert!(rcpt("TO:<a@\u{e4}>", ALL, true).is_ok());
    }

    #[test]
    fn twenty_digits_are_a_size_however_large() {
        assert_eq!(mail("FROM:<> SIZE=99999999999999999999", ALL).unwrap().params.size, Some(u64::MAX));
    }

    #[test]
    fn notify_survives_its_text_and_its_bits() {
        for bits in 0..8 {
            let notify = Notify::from_bits(bits);
            assert_eq!(Notify::parse(notify.as_str()), Ok(notify));
            assert_eq!(notify.to_bits(), bits);
        }
    }
}
