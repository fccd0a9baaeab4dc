//! A read model's place in the database. Each version of a read model owns a schema (`profiles_1`), so that a rebuild can
//! fill a new one beside the old.

/// A read model's tables, as this binary knows them.
pub struct Schema {
    pub name: &'static str,
    /// Counts the forms that the tables and what stands in them have had. A binary reads and feeds versions of its own
    /// shape alone.
    pub shape: i32,
    /// SQL that makes its tables; `{schema}` stands for its schema.
    pub tables: &'static str,
    /// SQL that makes, or makes anew, the functions by which it is written.
    pub functions: &'static str,
    /// The function that projectors call, without its schema.
    pub writes: &'static str,
    /// SQL that makes the indexes that only readers need.
    pub indexes: &'static str,
}

/// One version of a read model, among those that there are in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub projection: &'static str,
    pub number: i32,
}

impl Version {
    /// `profiles_1`.
    pub fn qualifier(&self) -> String {
        format!("{}_{}", self.projection, self.number)
    }

    /// SQL with `{schema}` put in.
    pub fn sql(&self, template: &str) -> String {
        template.replace("{schema}", &self.qualifier())
    }
}
