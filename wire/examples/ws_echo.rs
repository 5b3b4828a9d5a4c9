//! An echo server over this crate's decoder, encoders and handshake, for the Autobahn test suite (`autobahn/run`).
//!
//! A thread per connection and blocking sockets: what is tested is the codec. Prints the port it listens on; ends when
//! its standard input does, so that it never outlives the script that started it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use tidegate_wire::http1::full_response;
use tidegate_wire::ws::{Decoder, DecoderLimits, Incoming, Opcode, frame, handshake};

/// Cases 9.* send messages of 16 MiB, some in fragments of 64 bytes.
const LIMITS: DecoderLimits = DecoderLimits { message_bytes: 64 << 20, fragments: 1 << 20 };
/// As the gateway's scratch buffer.
const SCRATCH_BYTES: usize = 16 * 1024;
const HEAD_BYTES_LIMIT: usize = 8 * 1024;
/// A peer that does not close after our close is left.
const LINGER: Duration = Duration::from_secs(1);

fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    });
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            if let Err(error) = serve(stream) {
                eprintln!("connection ended: {error}");
            }
        });
    }
    Ok(())
}

/// Shakes hands, then echoes until either side closes.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let Some(mut early) = accept(&mut stream)? else { return Ok(()) };
    let mut decoder = Decoder::new();
    // Frames that came with the request are frames too.
    if !echo(&mut decoder, &mut early, &mut stream)? {
        return leave(&mut stream);
    }
    let mut scratch = vec![0; SCRATCH_BYTES];
    loop {
        let count = stream.read(&mut scratch)?;
        let input = scratch.get_mut(..count).unwrap_or_default();
        if input.is_empty() {
            return Ok(());
        }
        if !echo(&mut decoder, input, &mut stream)? {
            return leave(&mut stream);
        }
    }
}

/// Answers what `input` completes; whether the connection goes on.
fn echo(decoder: &mut Decoder, input: &mut [u8], stream: &mut TcpStream) -> io::Result<bool> {
    let mut out = Vec::new();
    let fed = decoder.feed(input, &LIMITS, &mut |incoming| match incoming {
        Incoming::Text(text) => frame::encode_into(Opcode::Text, text.as_bytes(), &mut out),
        Incoming::Binary(payload) => frame::encode_into(Opcode::Binary, payload, &mut out),
        Incoming::Ping(payload) => frame::encode_into(Opcode::Pong, payload, &mut out),
        Incoming::Pong(_) => {}
        Incoming::Close(None) => out.extend_from_slice(&frame::close_empty()),
        Incoming::Close(Some((code, reason))) => out.extend_from_slice(&frame::close(code, reason)),
    });
    if let Err(violation) = fed {
        out.extend_from_slice(&frame::close(violation.close_code(), violation.reason()));
    }
    stream.write_all(&out)?;
    Ok(!decoder.is_ended())
}

/// Ends our side and waits for the peer's, so that unread bytes do not turn our close into a reset.
fn leave(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(LINGER))?;
    let _ = io::copy(stream, &mut io::sink());
    Ok(())
}

/// Reads the request and answers it; the bytes that came after it, or `None` if it was refused.
fn accept(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut received = Vec::new();
    loop {
        let mut piece = [0; 1024];
        let count = stream.read(&mut piece)?;
        if count == 0 || received.len() > HEAD_BYTES_LIMIT {
            return Ok(None);
        }
        received.extend_from_slice(piece.get(..count).unwrap_or_default());

        let mut lines = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut lines);
        let parsed = request.parse(&received).map_err(io::Error::other)?;
        let httparse::Status::Complete(head_len) = parsed else { continue };
        let (method, version, headers) = convert(&request).map_err(io::Error::other)?;
        return match handshake::check(&method, version, &headers, &[]) {
            Ok(accept) => {
                stream.write_all(&accept.response_head(&[]))?;
                Ok(Some(received.split_off(head_len)))
            }
            Err(error) => {
                let text = error.to_string();
                stream.write_all(&full_response(error.status(), &error.headers(), text.as_bytes(), false))?;
                Ok(None)
            }
        };
    }
}

/// The request in the types the handshake takes.
fn convert(request: &httparse::Request<'_, '_>) -> Result<(Method, Version, HeaderMap), http::Error> {
    let mut headers = HeaderMap::new();
    for line in request.headers.iter() {
        headers.append(HeaderName::from_bytes(line.name.as_bytes())?, HeaderValue::from_bytes(line.value)?);
    }
    let method = Method::from_bytes(request.method.unwrap_or_default().as_bytes())?;
    let version = if request.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    Ok((method, version, headers))
}
