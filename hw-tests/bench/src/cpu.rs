//! Which CPUs the workers run on.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use crate::cli::Engine;

/// Why there are not enough.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CpuError {
    #[error("workers {workers}: this process may use {} CPUs ({}): at most as many workers", .usable.len(), list(.usable))]
    TooFew { workers: usize, usable: Vec<u32> },
    #[error("cpus {}: workers {workers} need as many CPUs", list(.given))]
    TooFewGiven { workers: usize, given: Vec<u32> },
    #[error("cpus {}: CPU {cpu} is given twice", list(.given))]
    Twice { cpu: u32, given: Vec<u32> },
    #[error("CPU {cpu}: this process may use {}", list(.usable))]
    NotUsable { cpu: u32, usable: Vec<u32> },
    #[error("which CPUs this process may use")]
    Ask(#[source] nix::Error),
}

fn list(cpus: &[u32]) -> String {
    cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

/// One CPU for each worker of the largest team, or more.
pub(crate) fn of_workers(engine: &Engine) -> Result<Vec<u32>, CpuError> {
    let set = sched_getaffinity(Pid::from_raw(0)).map_err(CpuError::Ask)?;
    let usable = (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).map(|cpu| cpu as u32);
    let workers = engine.workers.iter().copied().max().unwrap_or(1).into();
    choose(workers, engine.control_cpu, &engine.cpus, &usable.collect::<Vec<_>>())
}

fn choose(workers: usize, control: u32, given: &[u32], usable: &[u32]) -> Result<Vec<u32>, CpuError> {
    if let Some(&cpu) = given.iter().chain([&control]).find(|cpu| !usable.contains(cpu)) {
        return Err(CpuError::NotUsable { cpu, usable: usable.to_vec() });
    }
    let twice = |(at, cpu): (usize, &u32)| given[..at].contains(cpu).then_some(*cpu);
    if let Some(cpu) = given.iter().enumerate().find_map(twice) {
        return Err(CpuError::Twice { cpu, given: given.to_vec() });
    }
    match given {
        [] if usable.len() < workers => Err(CpuError::TooFew { workers, usable: usable.to_vec() }),
        [] => Ok(usable.iter().copied().filter(|cpu| *cpu != control).chain([control]).collect()),
        given if given.len() < workers => Err(CpuError::TooFewGiven { workers, given: given.to_vec() }),
        given => Ok(given.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_shares_a_cpu_with_control_only_if_it_must() {
        assert_eq!(choose(1, 0, &[], &[0, 1]), Ok(vec![1, 0]));
        assert_eq!(choose(2, 1, &[], &[0, 1, 2]), Ok(vec![0, 2, 1]));
        assert_eq!(choose(2, 0, &[0, 1], &[0, 1]), Ok(vec![0, 1]));
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_way_out() {
        let refusal = |workers, given: &[u32]| choose(workers, 0, given, &[0, 1]).unwrap_err().to_string();
        assert_eq!(refusal(3, &[]), "workers 3: this process may use 2 CPUs (0, 1): at most as many workers");
        assert_eq!(refusal(2, &[1]), "cpus 1: workers 2 need as many CPUs");
        assert_eq!(refusal(2, &[1, 1]), "cpus 1, 1: CPU 1 is given twice");
        assert_eq!(refusal(1, &[7]), "CPU 7: this process may use 0, 1");
    }
}
