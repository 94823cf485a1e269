//! The traffic, and what comes of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use culvert_hw_tests::net::{Netns, run};

use super::figure::{Better, Figure};
use super::kernel::Kernel;
use super::ours::Ours;
use super::{ECHO, HTTP, IPERF, PodsError, Side, VIP, address, restart};
use crate::cli::Pods;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Clients that ask for pages at the same time.
const CLIENTS: usize = 4;

/// All figures.
pub(super) fn all(pods: &Pods, ours: &mut Ours, kernel: &mut Kernel) -> Result<Vec<Figure>, PodsError> {
    let _servers = [Servers::start(ours)?, Servers::start(kernel)?];
    let mut bench = Bench { pods, ours, kernel, done: 0 };
    let idle = bench.idle()?;
    let mut figures = Vec::new();
    let tcp = |streams: &'static str| {
        move |side: &dyn Side, seconds: f64| iperf(side.client(), VIP, seconds, &["-P", streams], tcp_rate)
    };
    let near = |side: &dyn Side, seconds: f64| iperf(side.client(), &address(1, 3), seconds, &[], tcp_rate);
    let udp = |side: &dyn Side, seconds: f64| {
        iperf(side.client(), VIP, seconds, &["-u", "-b", "0", "-l", "64"], udp_rate)
    };
    let higher = |must| (Better::Higher, must);
    figures.extend(bench.pairs(
        "TCP to a Service, remote pod, 1 stream",
        "Gbit/s",
        higher(1.0),
        true,
        tcp("1"),
    )?);
    figures.extend(bench.pairs(
        "TCP to a Service, remote pod, 4 streams",
        "Gbit/s",
        higher(1.0),
        true,
        tcp("4"),
    )?);
    figures.extend(bench.pairs("TCP to a pod of the node, 1 stream", "Gbit/s", higher(0.5), false, near)?);
    figures.extend(bench.pairs(
        "TCP to a Service, pod of the node, 1 stream",
        "Gbit/s",
        higher(0.5),
        false,
        tcp("1"),
    )?);
    figures.extend(bench.pairs(
        "UDP, 64 bytes, to a Service, remote pod",
        "million/s",
        higher(1.2),
        true,
        udp,
    )?);
    figures.extend(bench.latency()?);
    figures.extend(bench.pairs(
        "HTTP connections to a Service, remote pod",
        "1000/s",
        higher(1.0),
        true,
        http,
    )?);
    if bench.is_wanted(restart::CASE) {
        bench.say(restart::CASE);
        figures.push(restart::gap(pods, bench.ours, tcp("1"))?);
    }
    figures.extend(idle);
    Ok(figures)
}

struct Bench<'a> {
    pods: &'a Pods,
    ours: &'a mut Ours,
    kernel: &'a mut Kernel,
    done: usize,
}

impl Bench<'_> {
    fn is_wanted(&self, case: &str) -> bool {
        self.pods.case.as_deref().is_none_or(|part| case.contains(part))
    }

    /// Both sides in turns.
    fn pairs(
        &mut self,
        case: &'static str,
        unit: &'static str,
        (better, must): (Better, f64),
        far: bool,
        measure: impl Fn(&dyn Side, f64) -> Result<f64, PodsError>,
    ) -> Result<Option<Figure>, PodsError> {
        if !self.is_wanted(case) {
            return Ok(None);
        }
        self.say(case);
        self.ours.serve(far)?;
        self.kernel.serve(far)?;
        let mut pairs = Vec::new();
        for _ in 0..self.pods.runs {
            pairs.push((measure(self.ours, self.pods.seconds)?, measure(self.kernel, self.pods.seconds)?));
        }
        Ok(Some(Figure::of_pairs(case, unit, better, must, &pairs)))
    }

    /// Time until one byte is answered by one byte.
    fn latency(&mut self) -> Result<Vec<Figure>, PodsError> {
        if !self.is_wanted("TCP request and response") {
            return Ok(vec![]);
        }
        self.say("TCP request and response");
        self.ours.serve(true)?;
        self.kernel.serve(true)?;
        let (mut medians, mut tails) = (Vec::new(), Vec::new());
        for _ in 0..self.pods.runs {
            let (ours, kernel) =
                (round_trips(self.ours, self.pods.seconds)?, round_trips(self.kernel, self.pods.seconds)?);
            medians.push((ours.0, kernel.0));
            tails.push((ours.1, kernel.1));
        }
        let figure = |case, pairs: &[_]| Figure::of_pairs(case, "us", Better::Lower, 1.3, pairs);
        Ok(vec![
            figure("TCP request and response, remote pod, p50", &medians),
            figure("TCP request and response, remote pod, p99", &tails),
        ])
    }

    /// CPU time of a fast path that has nothing to do.
    fn idle(&mut self) -> Result<Option<Figure>, PodsError> {
        const CASE: &str = "idle fast path";
        if !self.is_wanted(CASE) {
            return Ok(None);
        }
        self.say(CASE);
        let mut runs = Vec::new();
        for _ in 0..self.pods.runs {
            let (before, begin) = (self.ours.cpu_seconds()?, Instant::now());
            thread::sleep(Duration::from_secs_f64(self.pods.seconds));
            let each = (self.ours.cpu_seconds()? - before) / 2.0;
            runs.push(each / begin.elapsed().as_secs_f64() * 100.0);
        }
        Ok(Some(Figure::of_ours(CASE, "% of a CPU", Better::Lower, 2.0, &runs)))
    }

    fn say(&mut self, case: &str) {
        self.done += 1;
        eprintln!("[{}/9] {case}", self.done);
    }
}

/// What one run of iperf3 printed, as a figure.
fn iperf(
    client: &Netns,
    to: &str,
    seconds: f64,
    more: &[&str],
    figure: impl Fn(&serde_json::Value) -> Option<f64>,
) -> Result<f64, PodsError> {
    let (port, time) = (IPERF.to_string(), seconds.ceil().to_string());
    let mut command = client.command("timeout");
    command.args(["60", "iperf3", "-J", "-c", to, "-p", &port, "-t", &time]).args(more);
    let printed = run(&mut command)?;
    let json: serde_json::Value = serde_json::from_str(&printed.stdout)
        .map_err(|error| PodsError::Load(format!("{}: {error}: {}", printed.command, printed.stderr)))?;
    figure(&json).ok_or_else(|| PodsError::Load(format!("{}: {}", printed.command, json["error"])))
}

/// Gbit/s that arrived.
fn tcp_rate(json: &serde_json::Value) -> Option<f64> {
    Some(json["end"]["sum_received"]["bits_per_second"].as_f64()? / 1e9)
}

/// Million datagrams per second that arrived.
fn udp_rate(json: &serde_json::Value) -> Option<f64> {
    let sum = &json["end"]["sum"];
    let arrived = sum["packets"].as_f64()? - sum["lost_packets"].as_f64()?;
    Some(arrived / sum["seconds"].as_f64()? / 1e6)
}

/// Median and 99th percentile of the time until a byte comes back, in microseconds.
fn round_trips(side: &dyn Side, seconds: f64) -> Result<(f64, f64), PodsError> {
    let run = || -> std::io::Result<Vec<f64>> {
        let mut stream = connect(ECHO)?;
        let (mut times, mut byte) = (Vec::new(), [0]);
        let begin = Instant::now();
        while begin.elapsed().as_secs_f64() < seconds {
            let sent = Instant::now();
            stream.write_all(&[1])?;
            stream.read_exact(&mut byte)?;
            times.push(sent.elapsed().as_secs_f64() * 1e6);
        }
        Ok(times)
    };
    let mut times = side.client().run(run)?.map_err(PodsError::io("exchange bytes with the Service"))?;
    times.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    Ok((at(0.5), at(0.99)))
}

/// Thousands of connections per second, each with one request and one answer.
fn http(side: &dyn Side, seconds: f64) -> Result<f64, PodsError> {
    let client = || -> std::io::Result<u64> {
        let (begin, mut answered) = (Instant::now(), 0);
        while begin.elapsed().as_secs_f64() < seconds {
            let mut stream = connect(HTTP)?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            answered += u64::from(answer.starts_with(b"HTTP/1.1 200"));
        }
        Ok(answered)
    };
    let netns = side.client();
    let answered = thread::scope(|scope| -> Result<u64, PodsError> {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| netns.run(client))).collect();
        let mut sum = 0;
        for client in clients {
            let answered = client.join().map_err(|_| PodsError::Load("a client panicked".to_owned()))??;
            sum += answered.map_err(PodsError::io("ask the Service for a page"))?;
        }
        Ok(sum)
    })?;
    Ok(answered as f64 / seconds / 1e3)
}

fn connect(port: u16) -> std::io::Result<TcpStream> {
    let to: SocketAddr = SocketAddr::new(VIP.parse().map_err(std::io::Error::other)?, port);
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// What both servers of a side serve; ends with the value.
struct Servers {
    iperf: Vec<std::process::Child>,
    stop: Arc<AtomicBool>,
}

impl Servers {
    fn start(side: &dyn Side) -> Result<Self, PodsError> {
        let mut servers = Self { iperf: Vec::new(), stop: Arc::default() };
        for netns in [side.near(), side.far()] {
            let mut command = netns.command("iperf3");
            command.args(["-s", "-p", &IPERF.to_string()]).stdout(std::process::Stdio::null());
            servers.iperf.push(command.spawn().map_err(PodsError::io("start iperf3"))?);
            let bind = |port| netns.run(move || TcpListener::bind(("0.0.0.0", port)));
            let (echoes, pages) = (bind(ECHO)?, bind(HTTP)?);
            servers.listen(echoes.map_err(PodsError::io("listen in a pod"))?, |stream| {
                thread::spawn(|| echo(stream));
            });
            servers.listen(pages.map_err(PodsError::io("listen in a pod"))?, page);
        }
        // iperf3 has no sign that it listens.
        thread::sleep(Duration::from_millis(300));
        Ok(servers)
    }

    /// Serves until the first connection after the end.
    fn listen(&self, listener: TcpListener, serve: fn(TcpStream)) {
        let stop = Arc::clone(&self.stop);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                serve(stream);
            }
        });
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for child in &mut self.iperf {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sends every byte back.
fn echo(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut byte = [0];
    while stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte)).is_ok() {}
}

/// Answers one request.
fn page(mut stream: TcpStream) {
    let mut request = [0; 512];
    if stream.read(&mut request).is_ok() {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n");
    }
}
