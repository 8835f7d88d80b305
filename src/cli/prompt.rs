//! Questions on the terminal.

use std::io::{self, IsTerminal as _, Read as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// No answer is longer.
const LIMIT_BYTES: usize = 4096;

const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const BACKSPACE: u8 = 8;
const CTRL_U: u8 = 21;
const DELETE: u8 = 127;

/// Whether there is somebody to ask.
pub(super) fn is_possible() -> bool {
    io::stdin().is_terminal()
}

/// Asks for a line, as it is typed.
pub(super) fn line(question: &str) -> io::Result<String> {
    ask(question)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(answer.trim().to_owned())
}

/// Asks for a line that nobody else is to see.
pub(super) fn hidden(question: &str) -> io::Result<String> {
    ask(question)?;
    let mode = Hidden::enter()?;
    let mut answer = Vec::new();
    let mut stdin = io::stdin().lock();
    let end = loop {
        let mut byte = [0];
        if stdin.read(&mut byte)? == 0 {
            break Ok(());
        }
        match byte[0] {
            b'\r' | b'\n' => break Ok(()),
            CTRL_D if answer.is_empty() => break Ok(()),
            CTRL_C => break Err(io::Error::from(io::ErrorKind::Interrupted)),
            BACKSPACE | DELETE => drop(answer.pop()),
            CTRL_U => answer.clear(),
            byte if answer.len() < LIMIT_BYTES => answer.push(byte),
            _ => {}
        }
    };
    drop(mode);
    // What was typed is not shown, and neither is its end.
    let _ = io::stderr().write_all(b"\n");
    end?;
    String::from_utf8(answer)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the answer is not UTF-8"))
}

fn ask(question: &str) -> io::Result<()> {
    let mut out = io::stderr().lock();
    out.write_all(question.as_bytes())?;
    out.flush()
}

/// A terminal that shows nothing of what is typed; dropping it shows it again.
///
/// Keys that are signals come as what they are, so that the terminal is never left as it is now.
struct Hidden(Termios);

impl Hidden {
    fn enter() -> io::Result<Hidden> {
        let before = tcgetattr(io::stdin())?;
        let mut mode = before.clone();
        mode.local_modes
            .remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(io::stdin(), OptionalActions::Flush, &mode)?;
        Ok(Hidden(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
