//! What is done with bytes from outside.

use std::io::{self, Cursor, Read, Write};

use culvert_api::agent::{AgentReply, AgentRequest, Progress, StatusRequest, agent_request};
use culvert_api::config::agent::AgentConfig;
use culvert_api::config::fastpath::FastPathConfig;
use culvert_api::config::nic::NicPolicy;
use culvert_api::frame;

/// What a client of the agent, or the agent itself, may find on the socket.
pub(crate) fn request(bytes: &[u8]) {
    let mut stream = Cursor::new(bytes);
    // One frame after the other, until something is wrong.
    while let Ok(request) = frame::read::<AgentRequest>(&mut stream) {
        let again = frame::encode(&request).expect("what was read can be written");
        assert_eq!(frame::read::<AgentRequest>(&mut again.as_slice()).expect("what was written"), request);
    }
    let _ = frame::read::<AgentReply>(&mut &bytes[..]);
    let mut steps = 0;
    let call = agent_request::Call::Status(StatusRequest::default());
    let _ = frame::call(&mut Answers(Cursor::new(bytes)), call, |_: &Progress| steps += 1);
    assert!(steps <= bytes.len() / 4, "more progress than frames");
}

/// An agent that says what it is told to, whatever it is asked.
struct Answers<'a>(Cursor<&'a [u8]>);

impl Read for Answers<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Answers<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Any of the configuration files. An error says something.
pub(crate) fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let errors = [
        AgentConfig::from_yaml(text).err(),
        FastPathConfig::from_yaml(text).err(),
        NicPolicy::from_yaml(text).err(),
        NicPolicy::from_any_yaml(text).err(),
    ];
    for error in errors.into_iter().flatten() {
        assert!(!error.to_string().is_empty());
    }
}
