//! Programs under test, and the small commands around them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::frame::{Outcome, Stop, tail};

/// The path of one of this workspace's programs: they lie beside the program that is running.
///
/// # Errors
/// When it has not been built.
pub fn program(name: &str) -> Outcome<PathBuf> {
    let mut path = std::env::current_exe()?;
    path.pop();
    // Cargo puts test executables one folder deeper.
    if path.ends_with("deps") {
        path.pop();
    }
    path.push(name);
    if path.exists() { Ok(path) } else { Err(Stop::fail(format!("{}: not built", path.display()))) }
}

/// What a finished command left.
#[derive(Debug)]
pub struct Run {
    /// The command, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Run {
    /// Its output if it succeeded.
    ///
    /// # Errors
    /// Otherwise what it complained about.
    pub fn success(self) -> Outcome<String> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        let text = tail(&format!("{}\n{}", self.stdout, self.stderr), 15);
        Err(Stop::fail(format!("{}: {}: {}", self.command, self.status, text.trim())))
    }
}

/// Runs a command to its end.
///
/// # Errors
/// When it cannot be started.
pub fn run(command: &mut Command) -> Outcome<Run> {
    let text = text_of(command);
    let output = command.output().map_err(|e| Stop::from(e).while_doing(&text))?;
    Ok(Run {
        command: text,
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn text_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A program that runs in the background, its output in a log file; dropping it ends it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// How long a program may take to end after it has been asked to.
    const PATIENCE: Duration = Duration::from_secs(5);

    /// Starts `command` with its output appended to `DIR/NAME.log`.
    pub fn spawn(name: &str, command: &mut Command, dir: &Path) -> Outcome<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .map_err(|e| Stop::from(e).while_doing(&text_of(command)))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// All that it has printed.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// CPU time that it and the processes that it has started have taken so far, in seconds.
    pub fn cpu_seconds(&self) -> Outcome<f64> {
        let mut ticks = 0.0;
        for id in self.children()?.into_iter().map(Pid::as_raw).chain([self.child.id() as i32]) {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
            // Behind the name, which may hold spaces: user and system time are the 12th and 13th field.
            let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
            ticks += fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>();
        }
        Ok(ticks / 100.0)
    }

    /// The processes that it has started and that run.
    pub fn children(&self) -> Outcome<Vec<Pid>> {
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        Ok(children.split_whitespace().filter_map(|id| id.parse().ok()).map(Pid::from_raw).collect())
    }

    /// Fails when the program has ended; to be asked while waiting for it to do something.
    pub fn check_alive(&mut self) -> Outcome {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                Err(Stop::fail(format!("{} ended: {status}\n{}", self.name, tail(&self.log(), 15))))
            }
        }
    }

    /// Waits until the program ends by itself.
    pub fn wait(&mut self, limit: Duration) -> Outcome<ExitStatus> {
        crate::frame::wait_for(&format!("{} ends", self.name), limit, || Ok(self.child.try_wait()?))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Outcome {
        // A Linux process id is a positive i32.
        Ok(kill(Pid::from_raw(self.child.id() as i32), signal)?)
    }

    /// Ends it as `kill -9` does.
    pub fn kill(mut self) -> Outcome {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, and waits.
    ///
    /// # Errors
    /// When it does not end in time; it is then killed.
    pub fn stop(mut self) -> Outcome<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(Self::PATIENCE)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.signal(Signal::SIGTERM);
            let start = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < Self::PATIENCE {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
