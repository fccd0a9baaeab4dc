use crate::config::Flags;
pub fn run(_flags: &Flags) -> anyhow::Result<()> {
    Ok(())
}
