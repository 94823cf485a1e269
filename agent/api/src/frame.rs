//! Length-prefixed protobuf frames on the agent's socket.
//!
//! Layout: 4 bytes big-endian length `n`, then `n` bytes of an encoded message.

use std::io::{self, Read, Write};

use prost::Message;

use crate::agent::{AgentReply, AgentRequest, Progress, agent_reply, agent_request};

/// Longest frame either side accepts, in bytes: a listing of a million flows fits, a stray client's garbage does not.
pub const MAX_FRAME: usize = 256 << 20;

/// Encodes `message` with its length in front, ready to be written.
///
/// # Errors
/// `InvalidInput` when the message is longer than [`MAX_FRAME`].
pub fn encode(message: &impl Message) -> io::Result<Vec<u8>> {
    let len = message.encoded_len();
    if len > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("frame of {len} bytes: must be at most {MAX_FRAME}"),
        ));
    }
    let mut out = Vec::with_capacity(4 + len);
    out.extend_from_slice(&(len as u32).to_be_bytes());
    message.encode_raw(&mut out);
    Ok(out)
}

/// Reads the length in front of a frame.
///
/// # Errors
/// `InvalidData` when it is larger than [`MAX_FRAME`].
pub fn decode_len(header: [u8; 4]) -> io::Result<usize> {
    let len = u32::from_be_bytes(header) as usize;
    if len > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("frame of {len} bytes: must be at most {MAX_FRAME}; is this a Culvert client?"),
        ));
    }
    Ok(len)
}

/// Writes one frame to a blocking stream.
///
/// # Errors
/// Those of [`encode`] and of the stream.
pub fn write(stream: &mut impl Write, message: &impl Message) -> io::Result<()> {
    stream.write_all(&encode(message)?)
}

/// Reads one frame from a blocking stream.
///
/// # Errors
/// Those of [`decode_len`] and of the stream; `InvalidData` when the bytes are not such a message.
pub fn read<M: Message + Default>(stream: &mut impl Read) -> io::Result<M> {
    let mut header = [0; 4];
    stream.read_exact(&mut header)?;
    let len = decode_len(header)?;
    let mut body = Vec::new();
    // Memory grows with the bytes that arrive, not with the length that was claimed.
    let got = stream.take(len as u64).read_to_end(&mut body)?;
    if got < len {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("frame of {len} bytes ended after {got}"),
        ));
    }
    M::decode(body.as_slice()).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Sends `call` on a blocking stream to the agent and returns its answer; `progress` sees what comes before it.
///
/// # Errors
/// Those of [`write`] and [`read`].
pub fn call(
    stream: &mut (impl Read + Write),
    call: agent_request::Call,
    mut progress: impl FnMut(&Progress),
) -> io::Result<agent_reply::Result> {
    write(stream, &AgentRequest { call: Some(call) })?;
    loop {
        match read::<AgentReply>(stream)?.result {
            Some(agent_reply::Result::Progress(step)) => progress(&step),
            Some(answer) => return Ok(answer),
            None => {
                let text = "the agent's answer is of a kind unknown here: are both of the same version?";
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Error;

    #[test]
    fn a_frame_reads_back_as_written() {
        let sent = Progress { text: "vf 3".into(), done: 3, total: 8 };
        let mut wire = Vec::new();
        write(&mut wire, &sent).unwrap();
        assert_eq!(wire[..4], (wire.len() as u32 - 4).to_be_bytes());
        assert_eq!(read::<Progress>(&mut wire.as_slice()).unwrap(), sent);
    }

    #[test]
    fn a_length_past_the_limit_is_refused_before_memory_is_taken() {
        let error = read::<Error>(&mut [0xff; 64].as_slice()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn every_truncation_is_an_error() {
        let wire = encode(&Error { message: "no such PF".into() }).unwrap();
        for end in 0..wire.len() {
            assert!(read::<Error>(&mut &wire[..end]).is_err(), "{end} bytes");
        }
    }
}
