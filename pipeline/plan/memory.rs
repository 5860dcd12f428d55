//! How much memory a plan may need, and whether the machine has it.

use crate::flow::Error;
use crate::options::bytes_in_words;

/// The sum of the `n` largest.
pub fn sum_of_largest(sizes: impl Iterator<Item = u64>, n: usize) -> u64 {
    let mut sizes: Vec<u64> = sizes.collect();
    if n < sizes.len() {
        sizes.select_nth_unstable_by(n, |a, b| b.cmp(a));
        sizes.truncate(n);
    }
    sizes.iter().sum()
}

/// Refuses a plan that may need more memory than this machine has: it would be killed, after hours perhaps.
///
/// # Errors
/// [`Error::Plan`] with what takes the most.
pub fn check_memory(parts: &[(&'static str, u64)]) -> Result<(), Error> {
    match machine_bytes() {
        Some(machine) => check(parts, machine),
        None => Ok(()),
    }
}

fn check(parts: &[(&'static str, u64)], machine: u64) -> Result<(), Error> {
    let total: u64 = parts.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes));
    if total <= machine {
        return Ok(());
    }
    let (most, bytes) = parts.iter().max_by_key(|(_, bytes)| *bytes).expect("a plan has parts");
    Err(Error::Plan(vec![format!(
        "memory: the run may hold {}, and this machine has {}; most of it, {}, is {most}: lower --memory, --size, \
         --threads, the batch size or the rows per shard",
        bytes_in_words(total),
        bytes_in_words(machine),
        bytes_in_words(*bytes),
    )]))
}

/// The memory that this process can have: the machine's, or less where its control group has less. `None` where the
/// system does not say.
pub fn machine_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total = total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024;
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    Some(limit.and_then(|limit| limit.trim().parse().ok()).map_or(total, |limit: u64| limit.min(total)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_added_up() {
        for (n, expected) in [(0, 0), (1, 9), (3, 22), (5, 25), (9, 25)] {
            assert_eq!(sum_of_largest([1, 9, 2, 7, 6].into_iter(), n), expected);
        }
    }

    #[test]
    fn a_plan_that_needs_more_than_the_machine_has_is_a_problem() {
        let parts = [("files", 3 << 30), ("images", 6 << 30)];
        assert!(check(&parts, 9 << 30).is_ok());
        let Err(Error::Plan(problems)) = check(&parts, 8 << 30) else { panic!("it is refused") };
        let expected =
            "memory: the run may hold 9.0 GiB, and this machine has 8.0 GiB; most of it, 6.0 GiB, is images";
        assert!(problems[0].starts_with(expected), "{}", problems[0]);
    }
}
