//! A line to a server that can be cut, or stop, when so many bytes went there; or be cut on their way back.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// What happens when so many bytes went to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Pass,
    /// The connection that carries the next one is closed, once.
    CutAfter(u64),
    /// Nothing goes on.
    StallAfter(u64),
    /// Each connection that brings more than so many back is closed.
    CutEachBack(u64),
}

struct State {
    rule: Rule,
    bytes: u64,
    stalled: bool,
}

/// A port whose connections lead to a server.
pub(super) struct Line {
    pub(super) port: u16,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Line {
    pub(super) fn to(server: u16, rule: Rule) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State {
            rule,
            bytes: 0,
            stalled: false,
        };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let of_all = Arc::clone(&shared);
        // Ends with the process: nobody connects any more.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else {
                    continue;
                };
                let (to_client, to_server) = (client.try_clone(), server.try_clone());
                let (Ok(mut to_client), Ok(to_server)) = (to_client, to_server) else {
                    continue;
                };
                let (shared, of_answers) = (Arc::clone(&of_all), Arc::clone(&of_all));
                std::thread::spawn(move || forward(client, to_server, &shared));
                std::thread::spawn(move || {
                    let most = match of_answers.0.lock().unwrap().rule {
                        Rule::CutEachBack(bytes) => bytes,
                        _ => u64::MAX,
                    };
                    let _ = std::io::copy(&mut server.take(most), &mut to_client);
                    let _ = to_client.shutdown(Shutdown::Both);
                });
            }
        });
        Line { port, shared }
    }

    /// Waits until nothing goes on.
    pub(super) fn wait_stalled(&self) {
        let (state, changed) = &*self.shared;
        let mut state = state.lock().unwrap();
        while !state.stalled {
            state = changed.wait(state).unwrap();
        }
    }

    /// Lets everything pass from now on.
    pub(super) fn free(&self) {
        let (state, changed) = &*self.shared;
        state.lock().unwrap().rule = Rule::Pass;
        changed.notify_all();
    }

    /// Whether the line was cut.
    pub(super) fn was_cut(&self) -> bool {
        self.shared.0.lock().unwrap().rule == Rule::Pass
    }
}

fn forward(mut client: TcpStream, mut server: TcpStream, shared: &(Mutex<State>, Condvar)) {
    let mut piece = vec![0; 64 << 10];
    loop {
        let count = match client.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        let (state, changed) = shared;
        let mut state = state.lock().unwrap();
        state.bytes += count as u64;
        match state.rule {
            Rule::CutAfter(bytes) if state.bytes > bytes => {
                state.rule = Rule::Pass;
                break;
            }
            Rule::StallAfter(bytes) if state.bytes > bytes => {
                state.stalled = true;
                changed.notify_all();
                while state.rule != Rule::Pass {
                    state = changed.wait(state).unwrap();
                }
            }
            _ => {}
        }
        drop(state);
        if server.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}
