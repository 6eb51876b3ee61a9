//! Stand-ins for the models.
