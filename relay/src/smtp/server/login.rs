//! AUTH on its way through the machine: responses in, prompts out, and the driver's word on the login. What a response
//! means is the business of [`crate::smtp::auth`].

use super::{Answer, Asked, Cost, Ending, Event, Question, Server, State};
use crate::limits;
use crate::smtp::auth::Progress;
use crate::smtp::line::Line;
use crate::smtp::reply::{self, ReplyBuf};

impl Server {
    pub(super) fn read_response(&mut self, input: &[u8], out: &mut ReplyBuf) -> (usize, Option<Event>) {
        let (consumed, line) = self.lines.read(input, limits::AUTH_LINE_OCTETS_MAX);
        let progress = match line {
            Line::Partial => return (consumed, Some(Event::NeedInput)),
            Line::TlsRecord => return (consumed, Some(self.close(None, Ending::Abuse, out))),
            Line::TooLong => Progress::Failed(reply::LINE_TOO_LONG),
            Line::Malformed => Progress::Failed(reply::AUTH_MALFORMED),
            Line::Whole(text) => match std::mem::replace(&mut self.state, State::Commands) {
                State::Auth(exchange) => exchange.response(text),
                _ => Progress::Failed(reply::LOCAL_ERROR),
            },
        };
        self.lines.wipe();
        (consumed, self.proceed(progress, out))
    }

    /// Goes on with AUTH.
    pub(super) fn proceed(&mut self, progress: Progress, out: &mut ReplyBuf) -> Option<Event> {
        self.state = State::Commands;
        match progress {
            Progress::Prompt(exchange, prompt) => {
                out.push(&prompt);
                self.state = State::Auth(exchange);
                None
            }
            Progress::Failed(reply) => self.say(&reply, Cost::Error, out),
            Progress::Done(credentials) => Some(self.ask(Asked::Auth, Question::Auth(credentials))),
        }
    }

    pub(super) fn answer_auth(&mut self, answer: Answer, out: &mut ReplyBuf) {
        match answer.into_refusal() {
            // A wrong login is an error that counts (RFC 4954 §4 allows to close after several).
            Some(reply) => {
                self.errors += 1;
                out.push(&reply);
            }
            None => {
                self.is_authenticated = true;
                out.push(&reply::AUTHENTICATED);
            }
        }
    }
}
